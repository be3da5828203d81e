"""YAML and JSON without duplicate keys."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

Key = TypeVar("Key", bound=Hashable)


class _StrictLoader(yaml.SafeLoader):
    """YAML loader that refuses duplicate keys.

    It checks mappings before `<<` is resolved, because keys of a merged mapping may be replaced.
    """

    def compose_mapping_node(self, anchor: dict[Any, yaml.Node]) -> yaml.MappingNode:
        """Compose a mapping.

        Raises:
            yaml.MarkedYAMLError: a key stands twice.
        """
        node = super().compose_mapping_node(anchor)
        keys = [(key.value, key.tag) for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        duplicate = _first_duplicate(key for key in keys if key[0] != "<<")
        if duplicate is not None:
            raise yaml.MarkedYAMLError(problem=_duplicate_error(duplicate[0]), problem_mark=node.start_mark)
        return node


def _first_duplicate(keys: Iterable[Key]) -> Key | None:
    return next((key for key, count in Counter(keys).items() if count > 1), None)


def _duplicate_error(key: str) -> str:
    return f"the key '{key}' stands twice"


def _to_mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    duplicate = _first_duplicate(key for key, _ in pairs)
    if duplicate is not None:
        raise ValueError(_duplicate_error(duplicate))
    return dict(pairs)


def parse_file(path: Path) -> Any:
    """Return the content of the file, which is JSON if its name ends in `.json`, and else YAML.

    Raises:
        OSError, ValueError, yaml.YAMLError: with a reason that quotes no line of the file, since one may hold a key.
    """
    text = path.read_text(encoding="utf-8-sig")  # without the byte order mark that editors on Windows write
    if path.suffix == ".json":
        return json.loads(text, object_pairs_hook=_to_mapping)
    try:
        return yaml.load(text, Loader=_StrictLoader)  # noqa: S506 - it is a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise ValueError(f"{error.problem}{place}") from error


def find_source(path: Path, steps: Sequence[str | int]) -> str | None:
    """Return the text of a scalar as the YAML file has it, or None. `steps` are the keys and indexes that lead to it.

    The file was parsed before, which made the number 1.1 of `1.10`.
    """
    if path.suffix == ".json":
        return None
    node = yaml.compose(path.read_text(encoding="utf-8-sig"), Loader=_StrictLoader)
    for step in steps:
        if isinstance(node, yaml.MappingNode):
            node = next((value for key, value in node.value if key.value == step), None)
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int):
            node = node.value[step]
        else:
            return None
    return node.value if isinstance(node, yaml.ScalarNode) else None
