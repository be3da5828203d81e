"""Requests that cost a worker much, and the time that other callers wait for them."""
