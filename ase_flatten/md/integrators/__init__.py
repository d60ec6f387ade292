"""Integrators of the equations of motion."""
