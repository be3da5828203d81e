"""Stop strings, found in a text that arrives in parts, also where they span several of them."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Filter that ends a text before the first stop string and holds back what may be the beginning of one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.is_stopped = False

    def push(self, text: str) -> str:
        """Return the text that can be emitted now, without any part of a stop string and of what follows it."""
        if not self._stops:
            return text
        text = self._held + text
        starts = [start for start in map(text.find, self._stops) if start >= 0]
        if starts:
            self.is_stopped, self._held = True, ""
            return text[: min(starts)]
        cut = len(text) - self._partial_match_length(text)
        self._held = text[cut:]
        return text[:cut]

    def flush(self) -> str:
        """Return what was held back, at the end of a text without a stop string."""
        held, self._held = self._held, ""
        return held

    def _partial_match_length(self, text: str) -> int:
        """Return how many characters at the end of `text` may be the beginning of a stop string."""
        longest = min(len(text), max(map(len, self._stops)) - 1)
        return next(
            (
                length
                for length in range(longest, 0, -1)
                if any(stop.startswith(text[-length:]) for stop in self._stops)
            ),
            0,
        )
