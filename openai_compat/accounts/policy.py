"""Policies, which list the allowed models and endpoints, the limits and the budgets of a caller."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Final

from .money import parse_dollars, to_dollars
from .windows import Window

ENDPOINTS: Final = ("chat", "completions", "embeddings", "responses", "messages", "models", "other")
"""Groups of endpoints. `other` are those that are passed through to an upstream."""
RATES: Final[Mapping[str, tuple[str, float]]] = {
    "requests_per_minute": ("requests", 60.0),
    "tokens_per_minute": ("tokens", 60.0),
    "requests_per_day": ("requests", 86_400.0),
    "tokens_per_day": ("tokens", 86_400.0),
}
"""Limit -> what it counts, and the length of its window in seconds."""
CONCURRENT: Final = "concurrent_requests"
MAX_LIMIT: Final = 10**12


class PolicyError(ValueError):
    """A part of a policy is invalid. `param` is its dotted path."""

    def __init__(self, param: str, problem: str) -> None:
        super().__init__(f"'{param}' {problem}.")
        self.param = param


@dataclass(frozen=True, slots=True)
class Budget:
    """An amount of money for a window of time."""

    nano: int
    window: Window = field(default_factory=Window)

    @property
    def name(self) -> str:
        """Name of its meter. A budget whose amount is changed keeps what was spent."""
        return f"budget:{self.window.every or 'total'}:{self.window.time_zone}"

    def to_object(self) -> dict[str, Any]:
        """Return the budget as it is written in a policy."""
        return {
            "amount": to_dollars(self.nano),
            "every": self.window.every,
            "time_zone": self.window.time_zone,
        }


@dataclass(frozen=True, slots=True)
class Policy:
    """What an organization, a project, a key or an end user may do. An empty tuple of patterns allows all.

    `limits` has whole numbers by the names of `RATES`, and `concurrent_requests`. `end_users` is the policy of each end
    user, as named by `safety_identifier` or `user` in the request.
    """

    models: tuple[str, ...] = ()
    endpoints: tuple[str, ...] = ()
    limits: Mapping[str, int] = field(default_factory=dict)
    budgets: tuple[Budget, ...] = ()
    end_users: Policy | None = None

    def allows_model(self, model: str) -> bool:
        """Return True if the model matches one of the patterns, such as `gpt-4o*`."""
        return not self.models or any(fnmatchcase(model, pattern) for pattern in self.models)

    def allows_endpoint(self, endpoint: str) -> bool:
        """Return True if the group of endpoints is allowed."""
        return not self.endpoints or endpoint in self.endpoints

    def to_object(self) -> dict[str, Any]:
        """Return the policy as JSON."""
        return {
            "models": list(self.models),
            "endpoints": list(self.endpoints),
            "limits": dict(self.limits),
            "budgets": [budget.to_object() for budget in self.budgets],
            "end_users": None if self.end_users is None else self.end_users.to_object(),
        }


_KEYS: Final = ("models", "endpoints", "limits", "budgets", "end_users")


def parse_policy(value: Mapping[str, Any], path: str = "") -> Policy:
    """Return the policy that JSON or YAML describes.

    Raises:
        PolicyError
    """
    for name in value:
        if name not in _KEYS:
            raise PolicyError(f"{path}{name}", f"is unknown; known are {', '.join(_KEYS)}")
    end_users = value.get("end_users")
    if end_users is not None and path:
        raise PolicyError(f"{path}end_users", "cannot be within the policy of end users")
    return Policy(
        models=_texts(value, "models", path),
        endpoints=_endpoints(value, path),
        limits=_limits(value.get("limits") or {}, f"{path}limits"),
        budgets=_budgets(value.get("budgets") or [], f"{path}budgets"),
        end_users=None if end_users is None else parse_policy(_object(end_users, "end_users"), "end_users."),
    )


def _object(value: Any, path: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise PolicyError(path, "must be an object")
    return value


def _texts(value: Mapping[str, Any], name: str, path: str) -> tuple[str, ...]:
    texts = value.get(name) or []
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) and text for text in texts):
        raise PolicyError(f"{path}{name}", "must be a list of texts")
    return tuple(texts)


def _endpoints(value: Mapping[str, Any], path: str) -> tuple[str, ...]:
    names = _texts(value, "endpoints", path)
    for name in names:
        if name not in ENDPOINTS:
            raise PolicyError(f"{path}endpoints", f"has the unknown '{name[:40]}'; known are {', '.join(ENDPOINTS)}")
    return names


def _limits(value: Any, path: str) -> Mapping[str, int]:
    limits = {}
    for name, limit in _object(value, path).items():
        if name not in RATES and name != CONCURRENT:
            raise PolicyError(f"{path}.{name}", f"is unknown; known are {', '.join((*RATES, CONCURRENT))}")
        if limit is None:
            continue
        if not isinstance(limit, int) or isinstance(limit, bool) or not 0 <= limit <= MAX_LIMIT:
            raise PolicyError(f"{path}.{name}", "must be a whole number")
        limits[name] = limit
    return limits


def _budgets(value: Any, path: str) -> tuple[Budget, ...]:
    if not isinstance(value, list | tuple):
        raise PolicyError(path, "must be a list")
    budgets = tuple(_budget(_object(item, f"{path}[{n}]"), f"{path}[{n}]") for n, item in enumerate(value))
    if len({budget.name for budget in budgets}) < len(budgets):
        raise PolicyError(path, "has two budgets for the same window")
    return budgets


def _budget(value: Mapping[str, Any], path: str) -> Budget:
    for name in value:
        if name not in ("amount", "every", "time_zone"):
            raise PolicyError(f"{path}.{name}", "is unknown; known are amount, every, time_zone")
    try:
        nano = parse_dollars(value.get("amount"))
    except ValueError as error:
        raise PolicyError(f"{path}.amount", str(error)) from error
    every, zone = value.get("every"), value.get("time_zone") or "UTC"
    if every is not None and not isinstance(every, str):
        raise PolicyError(f"{path}.every", "must be a text")
    if not isinstance(zone, str):
        raise PolicyError(f"{path}.time_zone", "must be a text")
    try:
        return Budget(nano, Window(every, zone))
    except ValueError as error:
        raise PolicyError(f"{path}.every", str(error)) from error
