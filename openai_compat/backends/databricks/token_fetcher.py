"""Fetches one token for a service principal of Databricks, in a process of its own.

The SDK takes a second of CPU and 70 MB to import, and its calls have no time limit: none of that is for a worker that
serves others. It is asked once an hour. Reads `{"host", "client_id", "client_secret"}` from standard input and writes
`{"value", "fetched_at", "expires_at"}`, or the SDK's words on what is wrong to standard error: exit code 1 for a
refusal, 2 for a workspace that cannot be reached.
"""

from __future__ import annotations

import json
import logging
import sys
import time

REFUSED = 1
UNREACHABLE = 2


def main() -> int:
    from databricks.sdk.config import Config  # the only place that needs the extra

    asked = json.load(sys.stdin)
    logging.disable()
    fetched_at = time.time()
    try:
        token = Config(**asked, auth_type="oauth-m2m", http_timeout_seconds=10, retry_timeout_seconds=2).oauth_token()
    except Exception as error:  # noqa: BLE001 - the SDK has classes of many kinds; what it says goes to the log
        print(str(error).partition(". Config:")[0], file=sys.stderr)
        return UNREACHABLE if _is_unreachable(error) else REFUSED
    expires_at = token.expiry.timestamp() if token.expiry else fetched_at + 3600
    json.dump({"value": token.access_token, "fetched_at": fetched_at, "expires_at": expires_at}, sys.stdout)
    return 0


def _is_unreachable(error: BaseException | None) -> bool:
    """Whether one of the errors that led to this one is of the network (`requests`' are `OSError`s)."""
    while error is not None:
        if isinstance(error, OSError):
            return True
        error = error.__cause__ or error.__context__
    return False


if __name__ == "__main__":
    sys.exit(main())
