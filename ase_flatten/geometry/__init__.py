"""Pair distances, bonds, distributions of distances, and extrapolation."""
