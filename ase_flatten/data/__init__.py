"""Data sets: reading, units, sampling, and what they tell of their molecule."""
