"""The engine, a process beside the server that holds the local models, so that all workers share one copy of each.

It speaks OpenAI's protocol over a Unix socket and is built from the server's own endpoints and services.
"""
