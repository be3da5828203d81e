"""Writes the tables that the documentation takes from the code: `make docs`, or `make docs ARGS=--check`.

A table stands between `<!-- table: NAME -->` and `<!-- end -->`; in `.env.example` each setting's comment and default
are written anew, in the order and under the headings that the file has. What is between them is written by people.
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
from openai_compat.backends.base import (
    CHAT_PARAMETERS,
    COMPLETION_PARAMETERS,
    Backend,
    SupportsChat,
    SupportsCompletions,
    SupportsForwarding,
)
from openai_compat.backends.huggingface.engine_config import KIND as HUGGINGFACE
from openai_compat.backends.registry import KINDS, load_backend_class
from openai_compat.config.settings_table import Setting, parse_half_close
from openai_compat.core.profiles import DROPPED, PROFILES, Profile
from openai_compat.core.settings import Settings
from openai_compat.core.validators import (
    OneOf,
    WholeNumber,
    parse_boolean,
    parse_key,
    parse_list,
    parse_seconds,
    parse_state_url,
    parse_text,
    parse_url,
    parse_workspace,
)
from openai_compat.sidecars.huggingface.models.supported_parameters import (
    SAMPLED,
    SUPPORTED_CHAT_PARAMETERS,
    SUPPORTED_COMPLETION_PARAMETERS,
    TEMPLATE_PARAMETERS,
)
from openai_compat.tools.conformance.runner import CHECKS
from openai_compat.tools.mock_upstream.faults import MODELS
from openai_compat.web.schemas.chat import ChatRequestSchema
from openai_compat.web.schemas.completions import CompletionRequestSchema

ROOT: Final = Path(__file__).resolve().parent.parent
DOCUMENTS: Final = (
    "README.md",
    "docs/reference/configuration.md",
    "docs/internals/architecture.md",
    "docs/reference/backends.md",
    "docs/guides/fault-injection.md",
    "docs/guides/conformance-tests.md",
    "docs/internals/performance.md",
)
EXAMPLE: Final = ".env.example"

LAYERS: Final = (
    "",
    "web",
    "services",
    "routing",
    "backends",
    "state",
    "config",
    "core",
    "server",
    "sidecars",
    "cli",
    "tools",
)

PROGRAMS: Final = frozenset({"mock_upstream", "doctor", "conformance"})
"""Packages of `tools`, which are no part of the server: one line each."""

OFFLINE_KINDS: Final = frozenset({"echo"})
"""The kinds that answer by themselves: what they do not keep has no meaning, while the others pass it on."""
ADDRESSED: Final = frozenset({"messages", "prompt", "model", "stream", "stream_options"})
"""What the service itself deals with, for every kind."""
RELATIVES: Final = {
    "tool_choice": "tools",
    "parallel_tool_calls": "tools",
    "function_call": "functions",
    "modalities": "audio",
}
"""Parameters that mean nothing without another, and share its fate."""
OF_TOOLS: Final = frozenset({"functions", *(name for name, of in RELATIVES.items() if of in {"tools", "functions"})})
BY_TEMPLATE: Final = "by template"
"""Kept by models whose chat template knows tools, refused by others."""
_TYPES: Final[dict[Any, str]] = {
    parse_text: "text",
    parse_key: "text",
    parse_list: "list, with commas",
    parse_boolean: "true or false",
    parse_half_close: "true or false",
    parse_url: "URL",
    parse_workspace: "URL",
    parse_seconds: "seconds",
    parse_state_url: "URL",
}
_TABLE: Final = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
_ENTRY: Final = re.compile(r"(?:^# [^\n]*\n)+^# (?P<name>[A-Z_]+)=[^\n]*\n", re.MULTILINE)


def render(name: str, text: str) -> str:
    """The file `name` as it should be: `text` with its tables, or its settings, written anew."""
    if name == EXAMPLE:
        return _render_example(text)
    return _TABLE.sub(lambda found: f"{found[1]}{TABLES[found[2]]()}{found[3]}", text)


def to_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def settings_table() -> str:
    """Every setting of `config.py`."""
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


def type_of(setting: Setting) -> str:
    """What a setting takes; a parser that is not known here has to be named here first."""
    parse = setting.parse
    if isinstance(parse, OneOf):
        return ", ".join(f"`{word}`" for word in parse.words)
    if isinstance(parse, WholeNumber):
        return "whole number"
    return _TYPES[parse]


def default_of(setting: Setting) -> str:
    """The default as one would write it into `.env`, '' for none."""
    value = getattr(Settings(), setting.field)
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _render_example(text: str) -> str:
    """Settings that the file has and the code has not are taken out; those that it lacks come last."""
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


def treatment_of(kind: str, parameter: str, *, is_chat: bool) -> str:
    """What a kind of back end does with a parameter: `kept`, `by template`, `passed on`, by another name
    (``as `max_tokens` ``), `dropped`, `no meaning` or `refused`; `not served` where it takes no such calls at all.
    """
    if kind == HUGGINGFACE:
        return _local_treatment_of(parameter, is_chat=is_chat)
    backend_class = load_backend_class(kind)
    profile = PROFILES.get(kind, Profile())
    if parameter in profile.rename:
        return f"as `{profile.rename[parameter]}`"
    if profile.strips(parameter):
        return DROPPED
    if issubclass(backend_class, SupportsForwarding):
        return "passed on"
    kept = _promises_of(backend_class, is_chat=is_chat)
    if kept is None:
        return "not served"
    decisive = RELATIVES.get(parameter, parameter)
    if decisive in (CHAT_PARAMETERS if is_chat else COMPLETION_PARAMETERS) and decisive not in kept:
        return "refused"
    if kind not in OFFLINE_KINDS:
        return "passed on"
    return "kept" if decisive in kept else "no meaning"


def _local_treatment_of(parameter: str, *, is_chat: bool) -> str:
    """The engine's part: the back end of this kind only forwards to it."""
    decisive = "tools" if is_chat and parameter in OF_TOOLS else RELATIVES.get(parameter, parameter)
    if decisive in (SUPPORTED_CHAT_PARAMETERS if is_chat else SUPPORTED_COMPLETION_PARAMETERS) | SAMPLED:
        return "kept"
    if is_chat and decisive in TEMPLATE_PARAMETERS:
        return BY_TEMPLATE
    return "refused" if decisive in (CHAT_PARAMETERS if is_chat else COMPLETION_PARAMETERS) else "no meaning"


def _promises_of(backend_class: type[Backend], *, is_chat: bool) -> frozenset[str] | None:
    if is_chat:
        return backend_class.supported_chat_parameters if issubclass(backend_class, SupportsChat) else None
    return backend_class.supported_completion_parameters if issubclass(backend_class, SupportsCompletions) else None


def parameters_of(*, is_chat: bool) -> list[str]:
    """The documented parameters of a call, promises first."""
    schema = ChatRequestSchema() if is_chat else CompletionRequestSchema()
    promises = CHAT_PARAMETERS if is_chat else COMPLETION_PARAMETERS
    names = [name for name in schema.fields if name not in ADDRESSED]
    return sorted(names, key=lambda name: (RELATIVES.get(name, name) not in promises, name))


def _parameters_table(*, is_chat: bool) -> str:
    rows = [
        [f"`{parameter}`", *(treatment_of(kind, parameter, is_chat=is_chat) for kind in KINDS)]
        for parameter in parameters_of(is_chat=is_chat)
    ]
    return to_table(("parameter", *KINDS), rows)


def faults_table() -> str:
    """The models of the mock upstream."""
    rows = [
        [f"`{model.name}`", model.meaning, f"`{model.defaults}`" if model.defaults else ""] for model in MODELS.values()
    ]
    return to_table(("model", "what it does", "its parameters, when the name has none"), rows)


def checks_table() -> str:
    """Return the table of the conformance checks, each with what breaks in a client if it fails."""
    rows = [[check.section, check.title, check.why] for check in CHECKS]
    return to_table(("section", "check", "why it matters"), rows)


def modules_table() -> str:
    """Every module of the server with the first sentence of its docstring, layer by layer as a request meets them."""
    package = ROOT / "openai_compat"
    modules = [path for path in sorted(package.rglob("*.py")) if PROGRAMS.isdisjoint(path.parts)]
    modules.sort(key=lambda path: LAYERS.index(path.relative_to(package).parts[0] if path.parent != package else ""))
    shown = [*modules, *(package / "tools" / name / "__init__.py" for name in sorted(PROGRAMS))]
    rows = [[f"`{path.relative_to(package)}`", sentence] for path in shown if (sentence := _first_sentence(path))]
    return to_table(("`openai_compat/`", "what it is"), rows)


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


def _of_newest_run(to_table: Callable[[dict[str, Any]], str]) -> str:
    """A table of the newest whole run of the benchmark."""
    newest = max((ROOT / "bench" / "results").glob("*-run.json"))
    return to_table(json.loads(newest.read_text(encoding="utf-8"))) + "\n"


def _first_sentence(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    sentence = re.split(r"(?<=[.!?])\s|\n\n", docstring)[0]
    return re.sub(r" \(source: .*", ".", " ".join(sentence.split()))


TABLES: Final[dict[str, Callable[[], str]]] = {
    "settings": settings_table,
    "chat-parameters": lambda: _parameters_table(is_chat=True),
    "completion-parameters": lambda: _parameters_table(is_chat=False),
    "faults": faults_table,
    "conformance-checks": checks_table,
    "modules": modules_table,
    "bench": lambda: _of_newest_run(to_summary),
    "bench-headline": lambda: _of_newest_run(headline_list),
    "bench-targets": lambda: _of_newest_run(to_targets),
}


def main() -> int:
    """Writes what has changed; with `--check` names it, and fails if there is any."""
    parser = argparse.ArgumentParser(description="Renew the tables in the documentation.")
    parser.add_argument("--check", action="store_true", help="change nothing, fail where something would change")
    is_check = parser.parse_args().check
    outdated = [name for name in (*DOCUMENTS, EXAMPLE) if _renew(ROOT / name, name, is_check=is_check)]
    for name in outdated:
        print(f"{name} {'is out of date: make docs' if is_check else 'renewed'}")
    return int(is_check and bool(outdated))


def _renew(path: Path, name: str, *, is_check: bool) -> bool:
    before = path.read_text(encoding="utf-8")
    after = render(name, before)
    if after != before and not is_check:
        path.write_text(after, encoding="utf-8")
    return after != before


if __name__ == "__main__":
    sys.exit(main())
