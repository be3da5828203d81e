"""The heads of requests and answers: gunicorn's own work, with what is the same every time done once.

Reading a head, gunicorn looks at each header by itself, and at its configuration at every step. Here a head that is
plain is taken in one step; anything else is gunicorn's to judge. `docs/internals/performance.md` has the gain, and
`tests/unit/server/test_request_parser.py` holds that both read every head alike.
"""

from __future__ import annotations

import re
import time
from functools import lru_cache
from typing import Any, Final

from gunicorn import util
from gunicorn.config import Config
from gunicorn.http import parser, wsgi
from gunicorn.http.message import Request

MAX_CACHED_REQUEST_LINES: Final = 256

# A name with an underscore is no plain one: gunicorn decides whether it may stand for a name with a hyphen.
_FIELD = re.compile(r"([!#$%&'*+\-.^`|~0-9A-Za-z]+):([\t\x20-\x7e\x80-\xff]*)(?:\r\n|\Z)")
_request_lines: dict[bytes, tuple[Any, ...]] = {}


class FastRequest(Request):
    """gunicorn's request, read faster where there is nothing to object to."""

    def parse_request_line(self, line_bytes: bytes) -> None:
        """Clients send the same few lines again and again; one that was accepted need not be judged again."""
        known = _request_lines.get(line_bytes)
        if known:
            self.method, self.uri, self.path, self.query, self.fragment, self.version = known
            return
        super().parse_request_line(line_bytes)
        if len(_request_lines) >= MAX_CACHED_REQUEST_LINES:
            _request_lines.clear()
        known = (self.method, self.uri, self.path, self.query, self.fragment, self.version)
        _request_lines[line_bytes] = known

    def parse_headers(self, data: bytes, from_trailer: bool = False) -> list[tuple[str, str]]:
        text = data.decode("latin-1")
        fields = _FIELD.findall(text)
        are_all = sum([len(name) + len(value) + 3 for name, value in fields]) == len(text) + 2
        are_few = len(fields) <= self.limit_request_fields and len(text) + 2 <= self.limit_request_field_size
        headers = [(name.upper(), value.strip(" \t")) for name, value in fields]
        names = {name for name, _ in headers}
        if from_trailer or not are_all or not are_few or len(names) < len(headers):
            return super().parse_headers(data, from_trailer)
        special = names & self.cfg.secure_scheme_headers.keys() | names & {"EXPECT"}
        if special:
            trusted = self._peer_trusted_for_forwarded()  # type: ignore[attr-defined]  # unknown to its stubs
            state = [False]
            for name, value in headers:
                if name in special:
                    self._apply_header_policy(name, value, state, set(), *trusted)  # type: ignore[attr-defined]
        return headers


def patch_gunicorn(configuration: Config) -> None:
    """Makes gunicorn, in this process, work out once what does not change from request to request."""
    # Looked up thirty times a request, each time through `__getattr__` and a method. No worker's settings change.
    vars(configuration).update({name: setting.get() for name, setting in configuration.settings.items()})
    environ = wsgi.base_environ(configuration)
    wsgi.base_environ = lambda _: dict(environ)  # type: ignore[assignment]  # the parameter has another name
    util.http_date = http_date
    parser.RequestParser.mesg_class = FastRequest


def http_date(timestamp: float | None = None) -> str:
    """The time as HTTP writes it (RFC 9110, 5.6.7), made once a second."""
    return _date(int(time.time() if timestamp is None else timestamp))


_date = lru_cache(maxsize=2)(util.http_date)
