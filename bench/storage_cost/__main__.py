"""Cost of stored objects, `python -m bench.storage_cost`.

It prints the worker's CPU time for a chat and a response that are stored and for those that are not, and for how long a
row of 16 MB and the first use of the database stop all streams of the worker. The figures and plots of them are written
to `results/`.
"""

from __future__ import annotations

from bench.costs import write_charts

from .calls import measure_calls
from .holds import measure_holds


def main() -> None:
    """Run the measurements, and print and write their results."""
    write_charts("storage", [*measure_holds(), *measure_calls()])


if __name__ == "__main__":
    main()
