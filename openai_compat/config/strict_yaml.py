"""The models file as text: JSON or YAML in which no key stands twice."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import yaml

Key = TypeVar("Key", bound=Hashable)


class _StrictLoader(yaml.SafeLoader):
    """YAML without keys that stand twice. It looks before `<<` is resolved: what is merged in may be replaced."""

    def compose_mapping_node(self, anchor: dict[Any, yaml.Node]) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        keys = [(key.value, key.tag) for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        twice = _first_twice(key for key in keys if key[0] != "<<")
        if twice is not None:
            raise yaml.MarkedYAMLError(problem=f"the key '{twice[0]}' stands twice", problem_mark=node.start_mark)
        return node


def _first_twice(keys: Iterable[Key]) -> Key | None:
    return next((key for key, count in Counter(keys).items() if count > 1), None)


def _to_mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object whose keys all differ."""
    twice = _first_twice(key for key, _ in pairs)
    if twice is not None:
        raise ValueError(f"the key '{twice}' stands twice")
    return dict(pairs)


def parse_file(path: Path) -> Any:
    """The file's content.

    Raises:
        OSError, ValueError, yaml.YAMLError: with a reason that repeats no line of the file, as one may hold a key.
    """
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        return json.loads(text, object_pairs_hook=_to_mapping)
    try:
        return yaml.load(text, Loader=_StrictLoader)  # noqa: S506 - it is a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise ValueError(f"{error.problem}{where}") from error
