"""Benchmark of this server beside nginx, LiteLLM, Portkey and a baseline proxy."""
