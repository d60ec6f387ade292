"""Sampling of data sets with a reference method."""
