"""Chaos test that sends thousands of calls to models with random faults."""
