"""Cost of stored objects, `python -m bench.storage_cost`.

It prints the worker's CPU time for a chat that is stored and for one that is not, and for how long a row of 16 MB and
the first use of the database stop all streams of the worker.
"""

from __future__ import annotations

from .calls import measure_calls
from .holds import measure_holds


def main() -> None:
    """Run the measurements and print their results."""
    for line in (*measure_holds(), *measure_calls()):
        print(line, flush=True)


if __name__ == "__main__":
    main()
