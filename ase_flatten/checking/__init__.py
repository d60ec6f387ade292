"""What is wrong with a data set: its units, labels, geometries and order of atoms."""
