"""The commands `usage` and `budgets`, which show what was used and what is left."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

from openai_compat.accounts.account import Account
from openai_compat.accounts.limit_errors import format_duration
from openai_compat.accounts.meters import MeterState
from openai_compat.accounts.money import format_dollars, to_dollars
from openai_compat.accounts.service import Accounts
from openai_compat.accounts.usage_export import FORMATS, encode_rows
from openai_compat.accounts.usage_report import COLUMNS, ReportRequest
from openai_compat.core.errors import ObjectNotFoundError

from .account_access import all_of, command, duration, print_json, print_table

GROUPS: Final = {"key": "api_key_id", "project": "project_id", "model": "model", "user": "user_id"}
"""Value of `--by` -> name of the group in a report."""


def add_usage_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `usage`."""
    parser.add_argument(
        "--last", type=duration, default=30 * 86_400, metavar="TIME", help="time to look back, 30d by default"
    )
    parser.add_argument(
        "--by", nargs="+", choices=tuple(GROUPS), default=["key"], help="groups of the sums, keys by default"
    )
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="print JSON")
    output.add_argument("--export", choices=tuple(FORMATS), help="print each call instead of sums")
    parser.set_defaults(run=command(run_usage))


def add_budgets_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `budgets`."""
    parser.add_argument(
        "id", nargs="?", metavar="ID", help="id of a key, a project or the organization; all by default"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=command(run_budgets))


def run_usage(accounts: Accounts, arguments: argparse.Namespace) -> None:
    """Print the sums of the calls, or each of them."""
    end = int(time.time()) + 1
    start = end - arguments.last
    if arguments.export:
        for part in encode_rows(accounts.usage.rows(start, end, {}), arguments.export):
            sys.stdout.buffer.write(part)
        return
    groups = tuple(GROUPS[name] for name in arguments.by)
    totals = accounts.usage.totals(ReportRequest("costs", start, end, group_by=groups))
    if arguments.json:
        print_json([_to_usage_object(groups, row) for row in totals])
    else:
        print_table([_to_usage_row(groups, row) for row in totals], "There were no calls.")


def run_budgets(accounts: Accounts, arguments: argparse.Namespace) -> None:
    """Print the state of limits and budgets.

    Raises:
        ObjectNotFoundError: there is no account with the id.
    """
    chosen = [account for account in _accounts(accounts) if arguments.id in (None, account.id)]
    if arguments.id is not None and not chosen:
        raise ObjectNotFoundError(f"There is no key, project or organization with the id '{arguments.id[:100]}'.")
    states = [(account, state) for account in chosen for state in accounts.meters.states(account)]
    if arguments.json:
        print_json([{"account_id": account.id, **state.to_object()} for account, state in states])
    else:
        print_table([_to_meter_row(*one) for one in states], "There are no limits and no budgets.")


def _accounts(accounts: Accounts) -> Iterator[Account]:
    yield from all_of(accounts, "organization")
    yield from all_of(accounts, "project")
    yield from all_of(accounts, "key")


def _to_usage_object(groups: tuple[str, ...], row: Mapping[str, Any]) -> dict[str, Any]:
    names = {name: row[COLUMNS[name]] or None for name in groups}
    sums = {name: value for name, value in row.items() if name not in COLUMNS.values() and name != "cost_nano"}
    return {**names, **sums, "cost": to_dollars(row["cost_nano"])}


def _to_usage_row(groups: tuple[str, ...], row: Mapping[str, Any]) -> Mapping[str, str]:
    return {
        **{name.upper(): row[COLUMNS[name]] or "-" for name in groups},
        "CALLS": f"{row['calls']:,}",
        "FAILED": f"{row['errors']:,}",
        "INPUT": f"{row['input_tokens']:,}",
        "OUTPUT": f"{row['output_tokens']:,}",
        "COST": format_dollars(row["cost_nano"]),
    }


def _to_meter_row(account: Account, state: MeterState) -> Mapping[str, str]:
    show = format_dollars if state.rule.kind == "money" else "{:,}".format
    seconds = state.resets_in
    return {
        "ID": account.id,
        "NAME": account.name,
        "METER": state.rule.name,
        "LIMIT": show(state.rule.limit),
        "USED": show(state.used),
        "HELD": show(state.level.held),
        "LEFT": show(state.remaining),
        "RESETS IN": "-" if not seconds else format_duration(seconds),
    }
