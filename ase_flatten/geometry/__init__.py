"""Pair distances, bonds and what is made of them."""
