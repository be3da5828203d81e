"""Language and embedding models of the engine, run with torch and transformers.

Importing this package does not import them.
"""
