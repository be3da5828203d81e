"""Haystack pipelines, in a process of their own: the only package that imports Haystack."""
