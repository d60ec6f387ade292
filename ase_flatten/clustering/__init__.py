"""Clusters of configurational space, and the splits of a data set that respect them."""
