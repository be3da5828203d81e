"""JMESPath expressions and templates that contain them, such as `"{{ messages[].content }}"`.

A string that consists of one expression becomes the expression's value, of any type. In other strings the values are
inserted as text. A value that an expression does not find is omitted from its mapping or list.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

import jmespath
from jmespath import exceptions, functions

from openai_compat.backends.parsing.openai_chat import read_content

OPENING: Final = "{{"
CLOSING: Final = "}}"
MISSING: Final = object()
"""Value of an expression that found nothing, to be omitted from its mapping or list."""
WHOLE_DOCUMENT: Final = "@"
"""Root key of an expression that uses the entire document."""


class _Functions(functions.Functions):
    """JMESPath's functions and `text(content)`, the text of a message's content or of its list of parts."""

    @functions.signature({"types": ["string", "array", "null"]})
    def _func_text(self, content: Any) -> str:
        return read_content(content)[0]


_MISQUOTED: Final = re.compile(r"""[=!]=\s*("[^"]*")""")
"""A comparison with a key in double quotes, which is nearly always meant as a string."""
_JSON_PATH_HINT: Final = "a path begins with its first key (`data.answer`), and not with $ as in JSONPath"


def _to_single_quotes(text: str) -> str:
    return "'" + text.strip('"') + "'"


_OPTIONS: Final = jmespath.Options(custom_functions=_Functions())


class Expression:
    """Compiled JMESPath expression.

    Raises:
        ValueError: `source` is not a valid expression. The message has the position of the error.
    """

    def __init__(self, source: str) -> None:
        self.source = source.strip()
        try:
            self._compiled = jmespath.compile(self.source)
            self._compiled.search({"messages": []}, _OPTIONS)  # JMESPath looks up functions when it calls them
        except (exceptions.ParseError, exceptions.LexerError, exceptions.EmptyExpressionError) as error:
            reason = _JSON_PATH_HINT if self.source.startswith("$") else " ".join(str(error).split())
            raise ValueError(f"{self.source!r} is not a JMESPath expression: {reason}") from error
        except exceptions.UnknownFunctionError as error:
            raise ValueError(f"{self.source!r}: {error}") from error
        except exceptions.JMESPathError:
            pass  # a function that cannot handle the empty document
        if misquoted := _MISQUOTED.search(self.source):
            raise ValueError(
                f"{self.source!r}: {misquoted[1]} is the name of a key; a string is {_to_single_quotes(misquoted[1])}"
            )

    def find(self, document: Any) -> Any:
        """Return the value found, or None if there is none or a function cannot handle it."""
        try:
            return self._compiled.search(document, _OPTIONS)
        except exceptions.JMESPathError:
            return None

    def root_keys(self) -> set[str]:
        """Return the keys of the document that the expression uses."""
        return set(_root_keys(self._compiled.parsed))


TraceCallback = Callable[[str, Expression, Any], None]
"""Callback for each evaluated expression, with the declared key, the expression and the value found."""


def _root_keys(node: Mapping[str, Any]) -> Iterator[str]:
    """Yield the keys that are looked up in the document itself, which of a path is only the first."""
    kind, children = node["type"], node["children"]
    if kind == "field":
        yield node["value"]
    elif kind == "current":
        yield WHOLE_DOCUMENT
    elif kind in _PATHS:
        yield from _root_keys(children[0])
    else:
        for child in children:
            if isinstance(child, dict):
                yield from _root_keys(child)


_PATHS: Final = frozenset(
    {"subexpression", "index_expression", "projection", "value_projection", "filter_projection", "flatten", "pipe"}
)
"""Nodes of which only the first child is applied to the document."""


class Template:
    """Compiled JSON value with expressions in its strings. `expand` inserts environment variables into the other text.

    Raises:
        TemplateError: an expression is not valid.
    """

    def __init__(self, value: Any, expand: Callable[[str], str] = str) -> None:
        problems: list[str] = []
        self._render = _compile(value, expand, "", problems)
        self.expressions = list(_expressions_in(value)) if not problems else []
        if problems:
            raise TemplateError(problems)

    def render(self, document: Mapping[str, Any]) -> Any:
        """Return the value for `document`, or None if nothing was found."""
        value = self._render(document, str)
        return None if value is MISSING else value

    def render_text(self, document: Mapping[str, Any], escape: Callable[[str], str] = str) -> str:
        """Return the value as text. Values from `document` are escaped."""
        value = self._render(document, escape)
        return "" if value is MISSING else to_text(value)


class TemplateError(ValueError):
    """Invalid expressions in a template. Each of `problems` begins with the path of the expression."""

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
        return lambda document, escape: _without_missing(
            {key: render(document, escape) for key, render in members.items()}
        )
    if isinstance(value, list):
        items = [_compile(item, expand, f"{path}[{index}]", problems) for index, item in enumerate(value)]
        return lambda document, escape: [item for render in items if (item := render(document, escape)) is not MISSING]
    return _constant(value)


def _without_missing(members: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in members.items() if value is not MISSING}


def _constant(value: Any) -> Render:
    return lambda _document, _escape: value


def _compile_text(text: str, expand: Callable[[str], str]) -> Render:
    parts = list(split(text))
    if len(parts) == 1 and isinstance(parts[0], Expression):
        expression = parts[0]
        return lambda document, escape: _value_of(expression, document, escape)
    expanded = [part if isinstance(part, Expression) else expand(part) for part in parts]
    return lambda document, escape: "".join(
        escape(to_text(part.find(document))) if isinstance(part, Expression) else part for part in expanded
    )


def _value_of(expression: Expression, document: Mapping[str, Any], escape: Callable[[str], str]) -> Any:
    value = expression.find(document)
    if value is None:
        return MISSING
    return escape(value) if isinstance(value, str) else value


def split(text: str) -> Iterator[str | Expression]:
    """Yield the plain texts and the expressions of a string.

    An expression may contain braces. It ends at the first `}}` that makes it valid.

    Raises:
        ValueError: the text in braces is not a valid expression.
    """
    position = 0
    while (start := text.find(OPENING, position)) >= 0:
        if start > position:
            yield text[position:start]
        expression, position = _parse_braced(text, start)
        yield expression
    if position < len(text):
        yield text[position:]


def _parse_braced(text: str, start: int) -> tuple[Expression, int]:
    first_error: ValueError | None = None
    for end in re.finditer(r"(?=\}\})", text[start:]):
        try:
            return Expression(text[start + len(OPENING) : start + end.start()]), start + end.start() + len(CLOSING)
        except ValueError as error:
            first_error = first_error or error
    raise first_error or ValueError(f"{text[start:]!r} has no {CLOSING} at its end")


def _expressions_in(value: Any) -> Iterator[Expression]:
    if isinstance(value, str):
        yield from (part for part in split(value) if isinstance(part, Expression))
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _expressions_in(item)


def first_value(found: Any) -> Any:
    """Return the first item of a list, as filters and projections find one, or the value itself.

    An empty list gives None.
    """
    if isinstance(found, list):
        return found[0] if found else None
    return found


def to_text(value: Any) -> str:
    """Return a value as text. Strings stay as they are, None becomes "" and any other value JSON."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
