"""A run: its folder, and the training of its default and improved model."""
