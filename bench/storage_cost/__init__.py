"""Cost of stored objects."""
