"""Keys, limits, budgets and usage of the callers of this server."""
