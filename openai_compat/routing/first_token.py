"""The limit on the time before an answer begins, kept from outside: no backend has to know of it."""

from __future__ import annotations

import threading

from ..errors import UpstreamTimeoutError
from ..streams import Cancellation


class FirstTokenLimit:
    """`cancellation` is for one try: it happens with the call's own, for the same reason, and with an
    `UpstreamTimeoutError` when `seconds` have passed without `begun`.
    """

    def __init__(self, call: Cancellation, seconds: float) -> None:
        self.cancellation = Cancellation()
        self._call = call
        error = UpstreamTimeoutError("The upstream gave no first token within the time limit.")
        self._timer = threading.Timer(seconds, self.cancellation.cancel, (error,))
        self._timer.daemon = True
        self._timer.start()
        call.on_cancel(self._follow)

    def _follow(self) -> None:
        self.cancellation.cancel(self._call.reason)

    def begun(self) -> None:
        """The answer is there: the limit holds no more.

        Raises:
            UpstreamTimeoutError: it came too late; or what the call was cancelled for.
        """
        self._timer.cancel()
        self.cancellation.raise_if_cancelled()

    def close(self) -> None:
        """The try is over."""
        self._timer.cancel()
        self._call.forget(self._follow)
