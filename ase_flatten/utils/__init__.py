"""Helpers that know nothing of chemistry: exceptions, progress, files, cores, types."""
