"""What every backend must do: `backend_contract` has the tests, and each kind has a file that runs them."""
