"""Ending a text before a string that the caller named, however the string is spread over the pieces."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Passes a text through piece by piece, and holds back whatever may turn out to begin a stop string."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.is_stopped = False

    def push(self, text: str) -> str:
        """What may be told now; nothing of a stop string, nor of what comes after it."""
        if not self._stops:
            return text
        text = self._held + text
        capacity = [place for place in map(text.find, self._stops) if place >= 0]
        if capacity:
            self.is_stopped, self._held = True, ""
            return text[: min(capacity)]
        cut = len(text) - self._length_of_beginning(text)
        self._held = text[cut:]
        return text[:cut]

    def flush(self) -> str:
        """What was held back, where the text has ended without a stop string."""
        held, self._held = self._held, ""
        return held

    def _length_of_beginning(self, text: str) -> int:
        """How many characters at the end of `text` may be the beginning of a stop string."""
        longest = min(len(text), max(map(len, self._stops)) - 1)
        return next(
            (
                length
                for length in range(longest, 0, -1)
                if any(stop.startswith(text[-length:]) for stop in self._stops)
            ),
            0,
        )
