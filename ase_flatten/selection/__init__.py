"""Which frames to train on: errors by cluster, selection of frames, and the guard against wrong labels."""
