"""The limit on the time before an answer begins, kept from outside: no backend has to know of it."""

from __future__ import annotations

import threading

from ..errors import UpstreamTimeoutError
from ..streams import Cancellation


class FirstTokenLimit:
    """`cancellation` is for one try: it happens with the call's own, and when `seconds` have passed without `begun`."""

    def __init__(self, call: Cancellation, seconds: float) -> None:
        self.cancellation = Cancellation()
        self._call = call
        self._timer = threading.Timer(seconds, self.cancellation.cancel)
        self._timer.daemon = True
        self._timer.start()
        call.on_cancel(self.cancellation.cancel)

    @property
    def has_run_out(self) -> bool:
        return self.cancellation.is_cancelled and not self._call.is_cancelled

    def begun(self) -> None:
        """The answer is there: the limit holds no more.

        Raises:
            UpstreamTimeoutError: it came too late.
        """
        self._timer.cancel()
        if self.has_run_out:
            raise self.error()

    def close(self) -> None:
        """The try is over."""
        self._timer.cancel()
        self._call.forget(self.cancellation.cancel)

    @staticmethod
    def error() -> UpstreamTimeoutError:
        return UpstreamTimeoutError("The upstream gave no first token within the time limit.")
