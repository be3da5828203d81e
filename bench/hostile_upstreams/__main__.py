"""Cost of hostile and unlucky upstreams, `python -m bench.hostile_upstreams`.

It prints the worker's CPU time for 2 MB of answer in chunks of one byte, and how many of 4,000 calls fail or are
processed twice if each meets the moment at which the upstream closes its idle connection.
"""

from __future__ import annotations

from .keep_alive_race import measure_races
from .single_bytes import measure_single_bytes


def main() -> None:
    """Run both measurements and print their results."""
    for line in (*measure_single_bytes(), *measure_races()):
        print(line, flush=True)


if __name__ == "__main__":
    main()
