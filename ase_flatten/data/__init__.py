"""Data sets: reading, units, sampling, and what they reveal about the molecule."""
