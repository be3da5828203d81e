"""What a row of the models file says of routing: fallbacks, targets, retries, cooldown; checked, and made a policy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from openai_compat.core.settings import ModelConfig, RoutePolicy
from openai_compat.core.validators import parse_seconds

ROUTE_KEYS: Final = frozenset(
    {
        "fallbacks",
        "targets",
        "balance",
        "retries",
        "longest_wait",
        "cooldown",
        "context_fallback",
        "midstream",
    }
)
DEFAULTS: Final = RoutePolicy()
MAX_RETRIES: Final = 3
"""An upstream that has failed four times within moments fails the fifth time too."""
PREFILLS: Final = ("message", "prefix", "continue_final_message")
ALIAS_KEYS: Final = ROUTE_KEYS | {"name", "owned_by", "created", "metadata"}
"""The keys of a row that has `targets`: everything else belongs to those."""


def read_policy(row: Mapping[str, Any], where: str, problems: list[str]) -> RoutePolicy | None:
    """The policy of one row; None where it says nothing of routing. What is wrong goes into `problems`."""
    timeout = row.get("timeout")
    waits_for_token = isinstance(timeout, dict) and "first_token" in timeout
    if not (ROUTE_KEYS & row.keys() or waits_for_token):
        return None
    reader = _KeyReader(row, where, problems)
    seconds, faults = reader.cooldown()
    # A row that only limits its first token asks for no second try.
    default_retries = 1 if ROUTE_KEYS & row.keys() else 0
    return RoutePolicy(
        fallbacks=reader.read("fallbacks", to_names, ()),
        targets=reader.read("targets", to_weights, {}),
        strategy=reader.read("balance", one_of("weight", "latency"), "weight"),
        retries=reader.read("retries", to_retries, default_retries),
        max_retry_wait=reader.read("longest_wait", to_seconds, DEFAULTS.max_retry_wait),
        cooldown=seconds,
        failure_threshold=faults,
        context_overflow=reader.read("context_fallback", one_of("larger", "always"), "larger"),
        on_stream_break=reader.read("midstream", one_of("error", "continue"), "error"),
    )


class _KeyReader:
    """Reads the keys of one row; one with a wrong value is told and counts as absent."""

    def __init__(self, row: Mapping[str, Any], where: str, problems: list[str]) -> None:
        self._row = row
        self._where = where
        self._problems = problems

    def read(self, key: str, parse: Callable[[Any], Any], default: Any) -> Any:
        if self._row.get(key) is None:
            return default
        try:
            return parse(self._row[key])
        except (TypeError, ValueError) as error:
            self._problems.append(f"{self._where}: {key} {error}")
            return default

    def cooldown(self) -> tuple[float, int]:
        """`cooldown: 10`, or a mapping of `seconds` and `faults`."""
        limits: tuple[float, int] = self.read("cooldown", to_cooldown, (DEFAULTS.cooldown, DEFAULTS.failure_threshold))
        return limits


def to_seconds(value: Any) -> float:
    if isinstance(value, bool):
        raise ValueError("must be a number of seconds, 0 or more")
    return parse_seconds(value)


def to_names(value: Any) -> tuple[str, ...]:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise ValueError("must be a list of models' names")
    if len(set(names)) < len(names):
        raise ValueError("names a model twice")
    return tuple(names)


def to_weights(value: Any) -> dict[str, float]:
    """`[a, b]`, `[{model: a, weight: 3}, b]` or `{a: 3, b: 1}`."""
    rows = [{"model": name, "weight": weight} for name, weight in value.items()] if isinstance(value, dict) else value
    if not isinstance(rows, list) or not rows:
        raise ValueError("must be a list of models, each with its `weight`")
    pairs = [_to_pair(row) for row in rows]
    to_names([name for name, _ in pairs])
    if not any(weight for _, weight in pairs):
        raise ValueError("must have a weight above 0")
    return dict(pairs)


def _to_pair(row: Any) -> tuple[str, float]:
    if isinstance(row, str):
        return row, 1.0
    if not isinstance(row, dict) or not isinstance(row.get("model"), str) or row.keys() - {"model", "weight"}:
        raise ValueError("must have entries such as {model: name, weight: 1}")
    weight = row.get("weight", 1)
    if not isinstance(weight, int | float) or isinstance(weight, bool) or not 0 <= weight < 1e9:
        raise ValueError("must have weights that are numbers, 0 or more")
    return row["model"], float(weight)


def to_retries(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_RETRIES:
        raise ValueError(f"must be a whole number from 0 to {MAX_RETRIES}")
    return value


def to_cooldown(value: Any) -> tuple[float, int]:
    limits = value if isinstance(value, dict) else {"seconds": value}
    if limits.keys() - {"seconds", "faults"}:
        raise ValueError("takes a number of seconds, or `seconds` and `faults`")
    faults = limits.get("faults", DEFAULTS.failure_threshold)
    if not isinstance(faults, int) or isinstance(faults, bool) or faults < 1:
        raise ValueError("must have `faults` that are a whole number, 1 or more")
    return to_seconds(limits.get("seconds", DEFAULTS.cooldown)), faults


def to_window(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError("must be a number of tokens")
    return value


def to_prefill(value: Any) -> str | None:
    """`true` is the plain way, `false` none."""
    if isinstance(value, bool):
        return "message" if value else None
    return str(one_of(*PREFILLS)(value))


def one_of(*words: str) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        if value not in words:
            raise ValueError(f"must be {' or '.join(words)}")
        return str(value)

    return parse


def check_alias(row: Mapping[str, Any], where: str, problems: list[str]) -> None:
    """An alias answers nothing itself, so a row with `targets` has none of what belongs to a backend."""
    foreign = sorted(str(key) for key in row.keys() - ALIAS_KEYS)
    if foreign:
        problems.append(f"{where} has targets, so these keys belong to them: {', '.join(foreign)}")


def check_routes(entries: Mapping[str, ModelConfig], problems: list[str], *, has_upstream: bool) -> None:
    """Every name that a route mentions must be one that a call can go to."""
    for entry in entries.values():
        if entry.routing is None:
            continue
        for key, names in (("targets", entry.routing.targets), ("fallbacks", entry.routing.fallbacks)):
            for name in names:
                wrong = _what_is_wrong(name, entry, entries, has_upstream=has_upstream)
                if wrong:
                    problems.append(f"model '{entry.name}': {key} names '{name}', {wrong}")
        both = sorted(set(entry.routing.targets) & set(entry.routing.fallbacks))
        if both:
            problems.append(f"model '{entry.name}': {', '.join(both)} stands in targets and in fallbacks")


def _what_is_wrong(
    name: str, entry: ModelConfig, entries: Mapping[str, ModelConfig], *, has_upstream: bool
) -> str | None:
    named = entries.get(name)
    if name == entry.name:
        return "which is itself"
    if named is None:
        return None if has_upstream else "which is not configured"
    return "which has targets of its own" if named.is_alias else None


def names_of(entries: Iterable[ModelConfig]) -> set[str]:
    """Every model that the routes of `entries` mention."""
    policies = [entry.routing for entry in entries if entry.routing is not None]
    return {name for policy in policies for name in (*policy.targets, *policy.fallbacks)}
