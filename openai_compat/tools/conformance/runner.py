"""All questions, and asking them."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from . import checks_chat as ask_chat
from . import checks_errors as ask_errors
from . import checks_others as ask_others
from . import checks_streams as ask_streams
from . import checks_tools as ask_tools
from .client import CheckFailed, CheckSkipped, ConformanceClient
from .registry import Check

Outcome = Literal["right", "wrong", "not asked"]
SECTIONS: Final = (
    ask_errors.ERRORS,
    ask_errors.HEADERS,
    ask_chat.CHAT,
    ask_streams.SSE,
    ask_streams.CHUNKS,
    ask_tools.TOOLS,
    *ask_others.SECTIONS,
)
QUESTIONS: Final = tuple(question for section in SECTIONS for question in section.questions)


@dataclass(frozen=True)
class Result:
    """`detail` is what came instead, or why the question was not asked."""

    question: Check
    outcome: Outcome
    detail: str
    seconds: float


def ask_all(questions: Sequence[Check], interview: ConformanceClient, tell: Callable[[str], None]) -> list[Result]:
    """Every question's result, in order; `tell` hears each before it is asked, as a slow model takes its time."""
    results = []
    for number, question in enumerate(questions, 1):
        tell(f"{number}/{len(questions)} {question.title}")
        results.append(_ask(question, interview))
    return results


def _ask(question: Check, interview: ConformanceClient) -> Result:
    began = time.monotonic()
    outcome: Outcome = "right"
    detail = ""
    try:
        question.ask(interview)
    except CheckSkipped as reason:
        outcome, detail = "not asked", str(reason)
    except CheckFailed as error:
        outcome, detail = "wrong", str(error)
    except (OSError, http.client.HTTPException) as error:
        outcome, detail = "wrong", f"no answer: {error or type(error).__name__}"
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        # What came has another shape than the question goes through.
        outcome, detail = "wrong", f"an unexpected shape: {type(error).__name__}: {error}"
    return Result(question, outcome, detail, time.monotonic() - began)
