"""Renderer of the documentation's tables, `make docs` or `make docs ARGS=--check`.

A table is the text between `<!-- table: NAME -->` and `<!-- end -->`. In `.env.example`, the comment and the default of
each setting are rendered. The order and the headings of the file are preserved.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from bench.compare.report import to_summary, to_targets
from bench.compare.targets import CHAT, EVENT, to_value
from config import SETTINGS
from openai_compat.backends.registry import KINDS
from openai_compat.config.json_schema import models_json_schema
from openai_compat.config.model_schema import ModelSchema
from openai_compat.config.settings_table import Setting, parse_content_capture, parse_half_close
from openai_compat.core.settings import Settings
from openai_compat.core.validators import (
    OneOf,
    WholeNumber,
    parse_api_root,
    parse_boolean,
    parse_database_url,
    parse_key,
    parse_list,
    parse_pairs,
    parse_path_prefixes,
    parse_seconds,
    parse_share,
    parse_state_url,
    parse_text,
    parse_url,
    parse_workspace,
)
from openai_compat.telemetry.families import FAMILIES
from openai_compat.tools.conformance.runner import CHECKS
from openai_compat.tools.mock_upstream.faults import MODELS

from .parameter_treatment import parameters_of, treatment_of

ROOT: Final = Path(__file__).resolve().parent.parent
DOCUMENTS: Final = (
    "README.md",
    "docs/reference/configuration.md",
    "docs/internals/architecture.md",
    "docs/reference/backends.md",
    "docs/guides/fault-injection.md",
    "docs/guides/conformance-tests.md",
    "docs/guides/metrics.md",
    "docs/internals/performance.md",
)
EXAMPLE: Final = ".env.example"
SCHEMA: Final = "docs/reference/models.schema.json"
FILES: Final = (*DOCUMENTS, EXAMPLE, SCHEMA)

LAYERS: Final = (
    "",
    "web",
    "services",
    "accounts",
    "routing",
    "backends",
    "state",
    "storage",
    "config",
    "core",
    "server",
    "telemetry",
    "sidecars",
    "cli",
    "tools",
    "telemetry",
)

PROGRAMS: Final = frozenset({"mock_upstream", "doctor", "conformance"})
"""Packages of `tools` that are no part of the server. The table of modules has one line for each."""

_TYPES: Final[dict[Any, str]] = {
    parse_text: "text",
    parse_key: "text",
    parse_list: "comma-separated list",
    parse_pairs: "comma-separated list of `name=name`",
    parse_path_prefixes: "`all`, `none`, comma-separated list",
    parse_boolean: "true or false",
    parse_half_close: "true or false",
    parse_url: "URL",
    parse_api_root: "URL",
    parse_workspace: "URL",
    parse_seconds: "seconds",
    parse_share: "number from 0 to 1",
    parse_content_capture: "true or false",
    parse_state_url: "URL",
    parse_database_url: "URL",
}
_TABLE: Final = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
_ENTRY: Final = re.compile(r"(?:^# [^\n]*\n)+^# (?P<name>[A-Z_]+)=[^\n]*\n", re.MULTILINE)


def render(name: str, text: str) -> str:
    """Return the contents of the file `name` with its tables or settings rendered."""
    if name == EXAMPLE:
        return _render_example(text)
    if name == SCHEMA:
        return json.dumps(models_json_schema(), indent=2) + "\n"
    return _TABLE.sub(lambda found: f"{found[1]}{TABLES[found[2]]()}{found[3]}", text)


def to_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def settings_table() -> str:
    """Return the table of all settings."""
    rows = [
        [
            ", ".join(f"`{name}`" for name in setting.names),
            type_of(setting),
            f"`{default}`" if (default := default_of(setting)) else "",
            setting.meaning,
        ]
        for setting in SETTINGS
    ]
    return to_table(("setting", "type", "default", "meaning"), rows)


def renamed_table() -> str:
    """Former names of settings and of keys of the models file, which are still read."""
    settings = [(name, setting.name) for setting in SETTINGS for name in setting.former_names]
    rows = [[f"`{old}`", f"`{new}`"] for old, new in (*settings, *ModelSchema().former_keys())]
    return to_table(("former name", "present name"), rows)


def type_of(setting: Setting) -> str:
    """Return the type of a setting.

    Raises:
        KeyError: the setting's parser is not in `_TYPES`.
    """
    parse = setting.parse
    if isinstance(parse, OneOf):
        return ", ".join(f"`{word}`" for word in parse.words)
    if isinstance(parse, WholeNumber):
        return "whole number"
    return _TYPES[parse]


def default_of(setting: Setting) -> str:
    """Return the default as written in `.env`, an empty string for none."""
    value = getattr(Settings(), setting.field)
    if value is None or value == {}:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(value)
    return f"{value:.15g}" if isinstance(value, float) else str(value)


def _render_example(text: str) -> str:
    """Render the settings, remove unknown ones, and append missing ones."""
    known = {setting.name: setting for setting in SETTINGS}
    present = {found["name"] for found in _ENTRY.finditer(text)}
    rendered = _ENTRY.sub(lambda found: _example_entry(known.get(found["name"])), text)
    missing = [_example_entry(setting) for name, setting in known.items() if name not in present]
    return "\n".join([rendered, *missing])


def _example_entry(setting: Setting | None) -> str:
    if setting is None:
        return ""
    others = f" (also: {', '.join(setting.names[1:])})" if len(setting.names) > 1 else ""
    return f"# {setting.meaning}{others}\n# {setting.name}={default_of(setting)}\n"


def _parameters_table(*, is_chat: bool) -> str:
    rows = [
        [f"`{parameter}`", *(treatment_of(kind, parameter, is_chat=is_chat) for kind in KINDS)]
        for parameter in parameters_of(is_chat=is_chat)
    ]
    return to_table(("parameter", *KINDS), rows)


def faults_table() -> str:
    """Return the table of the mock upstream's models."""
    rows = [
        [f"`{model.name}`", model.meaning, f"`{model.defaults}`" if model.defaults else ""] for model in MODELS.values()
    ]
    return to_table(("model", "behaviour", "default options"), rows)


def checks_table() -> str:
    """Return the table of the conformance checks, each with what breaks in a client if it fails."""
    rows = [[check.section, check.title, check.why] for check in CHECKS]
    return to_table(("section", "check", "why it matters"), rows)


def metrics_table() -> str:
    """Return the table of all metrics."""
    rows = [
        [f"`{family.name}`", family.kind, ", ".join(f"`{label}`" for label in family.labels), family.meaning]
        for family in FAMILIES
    ]
    return to_table(("metric", "type", "labels", "meaning"), rows)


def modules_table() -> str:
    """Return the table of modules with the first sentences of their docstrings, ordered by layer."""
    package = ROOT / "openai_compat"
    modules = [path for path in sorted(package.rglob("*.py")) if PROGRAMS.isdisjoint(path.parts)]
    modules.sort(key=lambda path: LAYERS.index(path.relative_to(package).parts[0] if path.parent != package else ""))
    shown = [*modules, *(package / "tools" / name / "__init__.py" for name in sorted(PROGRAMS))]
    rows = [[f"`{path.relative_to(package)}`", sentence] for path in shown if (sentence := _first_sentence(path))]
    return to_table(("`openai_compat/`", "contents"), rows)


def headline_list(result: dict[str, Any]) -> str:
    """Return the benchmark's three headline figures as a list."""
    value = to_value(result["figures"])

    def compare(figure: str) -> list[str]:
        return [f"{value(name, figure):,.0f}" for name in ("ours", "litellm")]

    chat, event, memory = (compare(figure) for figure in (CHAT, EVENT, "memory/idle_worker_mb"))
    return (
        f"- {chat[0]} µs for a chat (LiteLLM: {chat[1]} µs)\n"
        f"- {event[0]} µs for a streamed event (LiteLLM: {event[1]} µs)\n"
        f"- {memory[0]} MB of memory for an idle worker (LiteLLM: {memory[1]} MB)"
    )


def _newest_run_table(to_markdown: Callable[[dict[str, Any]], str]) -> str:
    """Return a table of the newest complete run of the benchmark."""
    newest = max((ROOT / "bench" / "results").glob("*-run.json"))
    return to_markdown(json.loads(newest.read_text(encoding="utf-8"))) + "\n"


def _first_sentence(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    sentence = re.split(r"(?<=[.!?])\s|\n\n", docstring)[0]
    return re.sub(r" \(source: .*", ".", " ".join(sentence.split()))


TABLES: Final[dict[str, Callable[[], str]]] = {
    "settings": settings_table,
    "renamed": renamed_table,
    "chat-parameters": lambda: _parameters_table(is_chat=True),
    "completion-parameters": lambda: _parameters_table(is_chat=False),
    "faults": faults_table,
    "conformance-checks": checks_table,
    "metrics": metrics_table,
    "modules": modules_table,
    "bench": lambda: _newest_run_table(to_summary),
    "bench-headline": lambda: _newest_run_table(headline_list),
    "bench-targets": lambda: _newest_run_table(to_targets),
}


def main() -> int:
    """Write the files whose tables have changed. With `--check`, only list them and return 1 if there are any."""
    parser = argparse.ArgumentParser(description="Render the tables of the documentation.")
    parser.add_argument("--check", action="store_true", help="write nothing, fail if a file is out of date")
    is_check = parser.parse_args().check
    outdated = [name for name in FILES if _update(ROOT / name, name, is_check=is_check)]
    for name in outdated:
        print(f"{name} {'is out of date: make docs' if is_check else 'updated'}")
    return int(is_check and bool(outdated))


def _update(path: Path, name: str, *, is_check: bool) -> bool:
    before = path.read_text(encoding="utf-8")
    after = render(name, before)
    if after != before and not is_check:
        path.write_text(after, encoding="utf-8")
    return after != before


if __name__ == "__main__":
    sys.exit(main())
