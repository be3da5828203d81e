"""Command-line programs that are no part of the server."""
