"""Regression check that counts the instructions of the hot path."""
