"""Checks and the sections that collect them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .client import ConformanceClient

RunCheck = Callable[[ConformanceClient], None]


@dataclass(frozen=True)
class Check:
    """One requirement of OpenAI's API. `why` is what breaks in a client if the server does not meet it."""

    section: str
    title: str
    why: str
    run: RunCheck

    @property
    def name(self) -> str:
        """The name of the function, in kebab case."""
        return self.run.__name__.replace("_", "-")


class Section:
    """The checks of one topic, registered by the decorator `@SECTION.check("title", why="...")`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.checks: list[Check] = []

    def check(self, title: str, *, why: str) -> Callable[[RunCheck], RunCheck]:
        """Register the decorated function as a check of this section."""

        def register(run: RunCheck) -> RunCheck:
            self.checks.append(Check(self.name, title, why, run))
            return run

        return register
