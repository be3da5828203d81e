"""What a question is, and how a module collects its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .client import Interview

Ask = Callable[[Interview], None]


@dataclass(frozen=True)
class Question:
    """`why` says what breaks where the answer is another."""

    section: str
    title: str
    why: str
    ask: Ask

    @property
    def name(self) -> str:
        return self.ask.__name__.replace("_", "-")


class Section:
    """Collects a module's questions: `@SECTION.question("title", why="...")` on a function of an `Interview`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.questions: list[Question] = []

    def question(self, title: str, *, why: str) -> Callable[[Ask], Ask]:
        def add(ask: Ask) -> Ask:
            self.questions.append(Question(self.name, title, why, ask))
            return ask

        return add
