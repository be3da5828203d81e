"""Extras: packages that only some kinds of models need, and how whoever lacks one gets it."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final


def install_hint(extra: str) -> str:
    """The part of a sentence that names an extra and how it is installed: in a clone, and where the package is."""
    return f"the extra `{extra}`: pip install -r requirements-{extra}.txt, or pip install 'openai-compat[{extra}]'"


EXTRA: Final = ("torch", "transformers")


def missing_extra() -> str | None:
    """The first library of the extra `local` that is not installed, found without loading any."""
    return next((name for name in EXTRA if find_spec(name) is None), None)
