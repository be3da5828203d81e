"""Language models and embedding models that run here: what belongs into the engine process and needs torch.

Importing this package loads nothing heavy.
"""
