"""What a question is, and how a module collects its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .client import ConformanceClient

Ask = Callable[[ConformanceClient], None]


@dataclass(frozen=True)
class Check:
    """`why` says what breaks where the answer is another."""

    section: str
    title: str
    why: str
    ask: Ask

    @property
    def name(self) -> str:
        return self.ask.__name__.replace("_", "-")


class Section:
    """The checks of one module, registered by the decorator `@SECTION.question("title", why="...")`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.questions: list[Check] = []

    def question(self, title: str, *, why: str) -> Callable[[Ask], Ask]:
        def add(ask: Ask) -> Ask:
            self.questions.append(Check(self.name, title, why, ask))
            return ask

        return add
