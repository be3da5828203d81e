"""`python -m bench.local_models`."""

from .measurements import main

main()
