"""Program that fetches one token for a Databricks service principal.

It runs in a process of its own, once an hour for each worker, because importing the SDK takes a second of CPU and 70 MB
and the SDK's calls have no time limit. It reads `{"host", "client_id", "client_secret"}` from standard input and writes
`{"value", "fetched_at", "expires_at"}` to standard output. After a failure it writes the SDK's message to standard
error. Exit code 1 means that the workspace refused the service principal, 2 that it could not be reached.
"""

from __future__ import annotations

import json
import logging
import sys
import time

REFUSED = 1
UNREACHABLE = 2


def main() -> int:
    """Fetch the token and return the exit code."""
    from databricks.sdk.config import Config  # the only import of the extra

    request = json.load(sys.stdin)
    logging.disable()
    fetched_at = time.time()
    try:
        token = Config(**request, auth_type="oauth-m2m", http_timeout_seconds=10, retry_timeout_seconds=2).oauth_token()
    except Exception as error:  # noqa: BLE001 - the SDK raises many classes; the message goes to the log
        print(str(error).partition(". Config:")[0], file=sys.stderr)
        return UNREACHABLE if _is_unreachable(error) else REFUSED
    expires_at = token.expiry.timestamp() if token.expiry else fetched_at + 3600
    json.dump({"value": token.access_token, "fetched_at": fetched_at, "expires_at": expires_at}, sys.stdout)
    return 0


def _is_unreachable(error: BaseException | None) -> bool:
    """Return True if the error or one of its causes is a network error. Those of `requests` are `OSError`s."""
    while error is not None:
        if isinstance(error, OSError):
            return True
        error = error.__cause__ or error.__context__
    return False


if __name__ == "__main__":
    sys.exit(main())
