"""Benchmarks of this server, described in `bench/README.md`."""
