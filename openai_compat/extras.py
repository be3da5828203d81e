"""Extras: packages that only some kinds of models need, and how whoever lacks one gets it."""

from __future__ import annotations


def install_hint(extra: str) -> str:
    """The part of a sentence that names an extra and how it is installed: in a clone, and where the package is."""
    return f"the extra `{extra}`: pip install -r requirements-{extra}.txt, or pip install 'openai-compat[{extra}]'"
