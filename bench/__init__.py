"""Side-by-side measurements: `make bench`. See README.md beside this file."""
