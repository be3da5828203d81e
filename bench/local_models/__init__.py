"""Benchmark of local models beside `transformers serve` and `model.generate`."""
