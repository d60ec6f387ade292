"""Models as force providers of i-PI: ``ase-flatten ipi``, and a driver for i-PI's own client."""
