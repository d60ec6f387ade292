"""Models as force providers of i-PI: ``python -m ase_flatten.ipi``, and a driver for i-PI's own client."""
