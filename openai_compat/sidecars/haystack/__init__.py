"""The Haystack sidecar, which runs pipelines in a process of its own. Only this package imports Haystack."""
