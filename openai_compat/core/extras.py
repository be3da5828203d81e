"""Optional dependencies and how to install them."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final


def install_hint(extra: str) -> str:
    """Return words that name an extra and its installation commands, for a clone and for the installed package."""
    return f"the extra `{extra}`: pip install -r requirements-{extra}.txt, or pip install 'openai-compat[{extra}]'"


LOCAL_LIBRARIES: Final = ("torch", "transformers")


def missing_extra() -> str | None:
    """Return the first library of the extra `local` that is not installed, or None.

    No library is imported.
    """
    return next((name for name in LOCAL_LIBRARIES if find_spec(name) is None), None)
