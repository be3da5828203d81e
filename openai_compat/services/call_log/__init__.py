"""The log of calls, which the admin page shows."""
