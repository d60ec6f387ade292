"""Errors on held-out frames, their confidence intervals, and the conclusions they allow."""
