"""Tests of expressions and templates, and of the errors for invalid ones."""

from __future__ import annotations

import re
from typing import Any

import pytest

from openai_compat.backends.external.expressions import Expression, Template, TemplateError

DOCUMENT = {"name": "Zoë", "n": 0, "on": False, "list": [1, 2], "messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("plain", "plain"),
        ("{{ name }}", "Zoë"),
        ("Hi {{ name }}!", "Hi Zoë!"),
        ("{{ n }}", 0),
        ("{{ on }}", False),
        ("{{ list }}", [1, 2]),
        ("{{list}} and {{missing}}.", "[1, 2] and ."),
        ("{{ missing }}", None),
        ("{{ missing || 'else' }}", "else"),
        ("{{ messages[].{who: role, says: {text: content}} }}", [{"who": "user", "says": {"text": "hi"}}]),
        ({"a": "{{ missing }}", "b": None, "c": {"d": "{{ n }}"}}, {"b": None, "c": {"d": 0}}),
        (["{{ missing }}", "{{ name }}", 3], ["Zoë", 3]),
        ("{{ '{{' }}", "{{"),
        ("${NOT} {{ name }}", "${NOT} Zoë"),
    ],
)
def test_a_template_is_rendered(template: Any, value: Any) -> None:
    assert Template(template).render(DOCUMENT) == value


def test_environment_variables_in_client_values_are_not_expanded() -> None:
    template = Template({"key": "${KEY}", "said": "{{ said }}"}, lambda text: text.replace("${KEY}", "secret"))
    assert template.render({"said": "${KEY} {{ name }}"}) == {"key": "secret", "said": "${KEY} {{ name }}"}


def test_the_text_function_returns_the_text_of_a_message() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {}}, {"type": "text", "text": "b"}]
    assert Expression("messages[].text(content)").find({"messages": [{"content": parts}, {"content": "c"}]}) == [
        "ab",
        "c",
    ]


@pytest.mark.parametrize(
    ("source", "keys"),
    [
        ("a.b.c", {"a"}),
        ("a[?b=='c'].d", {"a"}),
        ("a || b.c", {"a", "b"}),
        ("{x: a, y: b[0]}", {"a", "b"}),
        ("length(a)", {"a"}),
        ("a | b", {"a"}),
        ("[a, 'b'][]", {"a"}),
        ("@", {"@"}),
    ],
)
def test_root_keys_are_the_first_keys_of_each_path(source: str, keys: set[str]) -> None:
    assert Expression(source).root_keys() == keys


def test_every_problem_of_a_template_has_its_path() -> None:
    with pytest.raises(TemplateError) as refused:
        Template({"a": {"b": ["{{ x[ }}"]}, "c": "{{ nothing( }}", "d": "{{ unclosed"})
    assert [problem.partition(":")[0] for problem in refused.value.problems] == ["a.b[0]", "c", "d"]


@pytest.mark.parametrize("source", ["", "a..b", "a[", "unheard_of(@)"])
def test_an_invalid_expression_is_refused(source: str) -> None:
    with pytest.raises(ValueError, match=r"JMESPath|[Uu]nknown function"):
        Expression(source)


def test_a_function_with_a_value_of_the_wrong_type_finds_nothing() -> None:
    assert Expression("length(a)").find({"a": 3}) is None


@pytest.mark.parametrize(
    ("source", "advice"),
    [
        ("$.data.answer", "begins with its first key (`data.answer`), and not with $"),
        ('events[?kind=="text"].v', "\"text\" is the name of a key; a string is 'text'"),
        ('kind != "text"', "\"text\" is the name of a key; a string is 'text'"),
    ],
)
def test_a_common_mistake_is_refused_with_advice(source: str, advice: str) -> None:
    with pytest.raises(ValueError, match=re.escape(advice)):
        Expression(source)


def test_a_quoted_key_is_accepted() -> None:
    assert Expression("\"stop-reason\" == 'end'").find({"stop-reason": "end"}) is True
