"""Language models and embedding models that run here: what belongs into the engine process and needs torch.

Importing this package loads nothing heavy.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final

EXTRA: Final = ("torch", "transformers")


def missing_extra() -> str | None:
    """The first library of the extra `local` that is not installed, found without loading any."""
    return next((name for name in EXTRA if find_spec(name) is None), None)
