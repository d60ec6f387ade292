"""Errors on held-out frames, their intervals, and what may be claimed from them."""
