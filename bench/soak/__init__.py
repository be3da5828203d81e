"""Honest clients during attacks, `make soak`."""
