"""Tests that every backend must pass. `backend_contract` has the suites, and each kind has a file that runs them."""
