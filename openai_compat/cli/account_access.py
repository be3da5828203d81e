"""What the commands about accounts share, such as the opening of the database and the ledger, and their output."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from openai_compat.accounts.account import Account, Kind
from openai_compat.accounts.policy import Policy, PolicyError, parse_policy
from openai_compat.accounts.service import Accounts, open_accounts
from openai_compat.config.environment import load_settings
from openai_compat.core.errors import ConfigurationError, ObjectNotFoundError, OpenAICompatError
from openai_compat.state.base import StoreError
from openai_compat.storage import open_storage

from . import FAILED, USAGE_ERROR

PAGE: Final = 1000
LIMITS: Final = {
    "--rpm": ("requests_per_minute", "requests in a minute"),
    "--tpm": ("tokens_per_minute", "tokens in a minute"),
    "--rpd": ("requests_per_day", "requests in a day"),
    "--tpd": ("tokens_per_day", "tokens in a day"),
    "--concurrent": ("concurrent_requests", "calls at the same time"),
}
_DURATION: Final = re.compile(r"(\d{1,9})([smhd])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def command(work: Callable[[Accounts, argparse.Namespace], None]) -> Callable[[argparse.Namespace], int]:
    """Return a command that runs `work` with the accounts. Errors are sentences and an exit code."""

    def run(arguments: argparse.Namespace) -> int:
        try:
            with _opened_accounts() as accounts:
                work(accounts, arguments)
        except ConfigurationError as error:
            print(error.message, file=sys.stderr)
            return USAGE_ERROR
        except PolicyError as error:
            print(f"the policy is wrong: {error}", file=sys.stderr)
            return USAGE_ERROR
        except OpenAICompatError as error:
            print(error.message, file=sys.stderr)
            return FAILED
        except StoreError as error:
            print(f"the ledger cannot be used: {error}", file=sys.stderr)
            return FAILED
        return 0

    return run


@contextmanager
def _opened_accounts() -> Iterator[Accounts]:
    """Open the accounts of the server's settings.

    Raises:
        ConfigurationError
    """
    settings = load_settings(with_models=False)
    storage = open_storage(settings.database_url, settings.data_dir, settings.store_ttl, settings.store_max_bytes)
    accounts = open_accounts(settings, storage)
    if accounts is None:
        raise ConfigurationError(["ACCOUNTS=off switches keys, limits and budgets off"])
    try:
        yield accounts
    finally:
        accounts.close()
        storage.close()


def add_policy_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments for what an account may do."""
    parser.add_argument(
        "--budget",
        action="append",
        default=[],
        metavar="DOLLARS[/EVERY]",
        help="a budget such as 5/month, 0.50/day, 20/30d, or 100 for all time; may be given several times",
    )
    parser.add_argument(
        "--time-zone", default="UTC", metavar="ZONE", help="time zone of the budgets, such as Asia/Tokyo"
    )
    for name, (limit, meaning) in LIMITS.items():
        parser.add_argument(name, dest=limit, type=int, metavar="N", help=meaning)
    parser.add_argument("--models", nargs="+", default=[], metavar="PATTERN", help="allowed models, such as 'gpt-4o*'")
    parser.add_argument("--endpoints", nargs="+", default=[], metavar="NAME", help="allowed endpoints, such as chat")
    parser.add_argument("--expires", type=duration, metavar="TIME", help="time until it expires, such as 30d or 12h")
    parser.add_argument("--tags", nargs="+", default=[], metavar="WORD", help="words by which you find it")


def to_new_values(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the values of a new account that the arguments give.

    Raises:
        PolicyError
    """
    expires_at = None if arguments.expires is None else int(time.time()) + arguments.expires
    return {
        "name": arguments.name,
        "policy": _to_policy(arguments),
        "expires_at": expires_at,
        "tags": tuple(arguments.tags),
    }


def _to_policy(arguments: argparse.Namespace) -> Policy:
    budgets = [text.partition("/") for text in arguments.budget]
    return parse_policy(
        {
            "models": arguments.models,
            "endpoints": arguments.endpoints,
            "limits": {limit: getattr(arguments, limit) for limit, _ in LIMITS.values()},
            "budgets": [
                {"amount": amount, "every": every or None, "time_zone": arguments.time_zone}
                for amount, _, every in budgets
            ],
        }
    )


def duration(text: str) -> int:
    """Return a time such as 30d, 12h or 90s in seconds, as an argparse `type`."""
    found = _DURATION.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"must be a number with s, m, h or d, such as 30d, not {text!r}")
    return int(found[1]) * _SECONDS[found[2]]


def all_of(accounts: Accounts, kind: Kind, parent_id: str | None = None) -> Iterator[Account]:
    """Yield all accounts of a kind, in the order of their creation."""
    after = None
    while True:
        found, has_more = accounts.manager.page(kind, parent_id, after, PAGE)
        yield from found
        if not has_more:
            return
        after = found[-1].id


def find_project(accounts: Accounts, name: str | None) -> Account | None:
    """Return the project with this name or id, or None without a name.

    Raises:
        ObjectNotFoundError: there is none, or there are several with this name.
    """
    if name is None:
        return None
    found = [project for project in all_of(accounts, "project") if name in (project.id, project.name)]
    if len(found) != 1:
        problem = "There is no project" if not found else "There are several projects"
        raise ObjectNotFoundError(f"{problem} '{name}'. `python -m openai_compat projects list` shows all of them.")
    return found[0]


def print_json(value: Any) -> None:
    """Print a value as JSON."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(rows: Sequence[Mapping[str, str]], empty: str) -> None:
    """Print rows of the same columns, or the sentence `empty` if there are none."""
    if not rows:
        print(empty)
        return
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in rows[0]}
    for row in ({name: name for name in widths}, *rows):
        print("  ".join(row[name].ljust(width) for name, width in widths.items()).rstrip())


def format_time(at: int | None) -> str:
    """Return a Unix time for people, in UTC."""
    return "never" if at is None else time.strftime("%Y-%m-%d %H:%M", time.gmtime(at))
