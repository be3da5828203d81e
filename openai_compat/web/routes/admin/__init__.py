"""The admin page and its endpoints."""
