"""Metrics and traces of the server, for its operators."""
