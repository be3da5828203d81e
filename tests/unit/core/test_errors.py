"""The tree of errors."""

from __future__ import annotations

from collections.abc import Iterator

from openai_compat.core import errors
from openai_compat.core.errors import OpenAICompatError


def tree(error: type[OpenAICompatError], depth: int = 0) -> Iterator[tuple[int, str]]:
    yield depth, error.__name__
    for child in error.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from tree(child, depth + 1)


def test_the_module_docstring_draws_every_error_below_its_base_class() -> None:
    drawn = []
    for line in (errors.__doc__ or "").splitlines():
        branch, _, text = line.removeprefix("    ").rpartition("─ ")
        if text.split(" ")[0].endswith("Error"):
            drawn.append((-(-len(branch) // 4), text.split(" ")[0]))
    assert drawn == list(tree(OpenAICompatError))
