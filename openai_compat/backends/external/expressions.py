"""JMESPath expressions, and templates whose texts have some in them: `"{{ messages[].content }}"`.

A text that is nothing but one expression becomes the expression's value, of whatever type; in any other text the values
are written as text. What an expression does not find is left out of the mapping or list that it stands in.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

import jmespath
from jmespath import exceptions, functions

from openai_compat.backends.parsing.openai_chat import read_content

OPEN: Final = "{{"
CLOSE: Final = "}}"
MISSING: Final = object()
"""What is left out of the mapping or list that it stands in."""
WHOLE_DOCUMENT: Final = "@"
"""Among the names that an expression begins with: it takes the whole document."""


class _Functions(functions.Functions):
    """JMESPath's own, and `text(content)`: the text of a message's content, be it a text or a list of parts."""

    @functions.signature({"types": ["string", "array", "null"]})
    def _func_text(self, content: Any) -> str:
        return read_content(content)[0]


_MISQUOTED: Final = re.compile(r"""[=!]=\s*("[^"]*")""")
"""What is compared with a name in double quotes, and nearly always meant to be with a text."""
_JSON_PATH: Final = "a path begins with its first key (`data.answer`), and not with $ as in JSONPath"


def _requoted(text: str) -> str:
    return "'" + text.strip('"') + "'"


_OPTIONS: Final = jmespath.Options(custom_functions=_Functions())


class Expression:
    """One compiled expression.

    Raises:
        ValueError: `source` is none; with the place where it goes wrong.
    """

    def __init__(self, source: str) -> None:
        self.source = source.strip()
        try:
            self._compiled = jmespath.compile(self.source)
            self._compiled.search({"messages": []}, _OPTIONS)  # functions are looked up when they are called
        except (exceptions.ParseError, exceptions.LexerError, exceptions.EmptyExpressionError) as error:
            reason = _JSON_PATH if self.source.startswith("$") else " ".join(str(error).split())
            raise ValueError(f"{self.source!r} is not a JMESPath expression: {reason}") from error
        except exceptions.UnknownFunctionError as error:
            raise ValueError(f"{self.source!r}: {error}") from error
        except exceptions.JMESPathError:
            pass  # the trial document has none of what it works on
        if misquoted := _MISQUOTED.search(self.source):
            raise ValueError(
                f"{self.source!r}: {misquoted[1]} is the name of a key; a text is {_requoted(misquoted[1])}"
            )

    def find(self, document: Any) -> Any:
        """What it finds; None where there is nothing, also where a function cannot take what is there."""
        try:
            return self._compiled.search(document, _OPTIONS)
        except exceptions.JMESPathError:
            return None

    def names(self) -> set[str]:
        """The keys of the document that it begins with."""
        return set(_names_in(self._compiled.parsed))


Watch = Callable[[str, Expression, Any], None]
"""Is told what a declared expression found: its key, the expression, the value."""


def _names_in(node: Mapping[str, Any]) -> Iterator[str]:
    """Those that are looked up in the document itself: of a path only the first part is."""
    kind, children = node["type"], node["children"]
    if kind == "field":
        yield node["value"]
    elif kind == "current":
        yield WHOLE_DOCUMENT
    elif kind in _PATHS:
        yield from _names_in(children[0])
    else:
        for child in children:
            if isinstance(child, dict):
                yield from _names_in(child)


_PATHS: Final = frozenset(
    {"subexpression", "index_expression", "projection", "value_projection", "filter_projection", "flatten", "pipe"}
)
"""Nodes whose first child alone sees the document."""


class Template:
    """A JSON value with expressions in its texts, compiled. `expand` puts the environment's values into the rest.

    Raises:
        ValueError: an expression is none; with every problem, and the path to its place, in `problems`.
    """

    def __init__(self, value: Any, expand: Callable[[str], str] = str) -> None:
        problems: list[str] = []
        self._render = _compile(value, expand, "", problems)
        self.expressions = list(_expressions_in(value)) if not problems else []
        if problems:
            raise TemplateError(problems)

    def render(self, document: Mapping[str, Any]) -> Any:
        """The value for `document`; None where nothing is left of it."""
        value = self._render(document, str)
        return None if value is MISSING else value

    def render_text(self, document: Mapping[str, Any], escape: Callable[[str], str] = str) -> str:
        """The value as text, what comes from `document` escaped."""
        value = self._render(document, escape)
        return "" if value is MISSING else to_text(value)


class TemplateError(ValueError):
    """`problems` has a sentence for each expression that is none, beginning with the path to it."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems))


Render = Callable[[Mapping[str, Any], Callable[[str], str]], Any]


def _compile(value: Any, expand: Callable[[str], str], path: str, problems: list[str]) -> Render:
    if isinstance(value, str):
        try:
            return _compile_text(value, expand)
        except ValueError as error:
            problems.append(f"{path}: {error}" if path else str(error))
            return _constant(None)
    if isinstance(value, dict):
        members = {
            str(key): _compile(item, expand, f"{path}.{key}" if path else str(key), problems)
            for key, item in value.items()
        }
        return lambda document, escape: _present({key: render(document, escape) for key, render in members.items()})
    if isinstance(value, list):
        items = [_compile(item, expand, f"{path}[{at}]", problems) for at, item in enumerate(value)]
        return lambda document, escape: [item for render in items if (item := render(document, escape)) is not MISSING]
    return _constant(value)


def _present(members: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in members.items() if value is not MISSING}


def _constant(value: Any) -> Render:
    return lambda _document, _escape: value


def _compile_text(text: str, expand: Callable[[str], str]) -> Render:
    parts = list(split(text))
    if len(parts) == 1 and isinstance(parts[0], Expression):
        whole = parts[0]
        return lambda document, escape: _value_of(whole, document, escape)
    pieces = [part if isinstance(part, Expression) else expand(part) for part in parts]
    return lambda document, escape: "".join(
        escape(to_text(piece.find(document))) if isinstance(piece, Expression) else piece for piece in pieces
    )


def _value_of(expression: Expression, document: Mapping[str, Any], escape: Callable[[str], str]) -> Any:
    value = expression.find(document)
    if value is None:
        return MISSING
    return escape(value) if isinstance(value, str) else value


def split(text: str) -> Iterator[str | Expression]:
    """The texts and expressions that a text consists of. An expression may have braces of its own: it ends at the first
    `}}` at which it is one.

    Raises:
        ValueError: what stands in braces is no expression.
    """
    at = 0
    while (start := text.find(OPEN, at)) >= 0:
        if start > at:
            yield text[at:start]
        expression, at = _parse_braced(text, start)
        yield expression
    if at < len(text):
        yield text[at:]


def _parse_braced(text: str, start: int) -> tuple[Expression, int]:
    first: ValueError | None = None
    for end in re.finditer(r"(?=\}\})", text[start:]):
        try:
            return Expression(text[start + len(OPEN) : start + end.start()]), start + end.start() + len(CLOSE)
        except ValueError as error:
            first = first or error
    raise first or ValueError(f"{text[start:]!r} has no {CLOSE} at its end")


def _expressions_in(value: Any) -> Iterator[Expression]:
    if isinstance(value, str):
        yield from (part for part in split(value) if isinstance(part, Expression))
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _expressions_in(item)


def first_value(found: Any) -> Any:
    """The one value that is meant where an expression finds a list, as filters and projections do; None for an empty
    one.
    """
    if isinstance(found, list):
        return found[0] if found else None
    return found


def to_text(value: Any) -> str:
    """A value within a text: texts as they are, nothing as nothing, everything else as JSON."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
