"""Command `keys`, which creates, lists, shows, revokes and rotates keys of callers."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping

from openai_compat.accounts.account import Account
from openai_compat.accounts.account_objects import to_object
from openai_compat.accounts.manager import NewAccount
from openai_compat.accounts.service import Accounts

from .account_access import (
    add_policy_arguments,
    all_of,
    command,
    duration,
    find_project,
    format_time,
    print_json,
    print_table,
    to_new_values,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the actions of `keys`."""
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    create = actions.add_parser("create", help="create a key and print it, which is possible only once")
    create.add_argument("name", metavar="NAME", help="a name for people")
    create.add_argument("--project", metavar="NAME", help="name or id of its project")
    add_policy_arguments(create)
    create.set_defaults(run=command(run_create))
    listing = actions.add_parser("list", help="list the keys, without their secrets")
    listing.add_argument("--project", metavar="NAME", help="name or id of a project")
    listing.set_defaults(run=command(run_list))
    show = actions.add_parser("show", help="show a key, without its secret")
    show.set_defaults(run=command(run_show))
    revoke = actions.add_parser("revoke", help="delete a key, which is refused within a second")
    revoke.set_defaults(run=command(run_revoke))
    rotate = actions.add_parser("rotate", help="give a key another secret and print it")
    rotate.add_argument("--overlap", type=duration, default=0, metavar="TIME", help="time for which the old one works")
    rotate.set_defaults(run=command(run_rotate))
    for action in (show, revoke, rotate):
        action.add_argument("id", metavar="ID", help="id of the key, as `keys list` shows it")
    for action in (create, listing, show, rotate):
        action.add_argument("--json", action="store_true", help="print JSON")


def run_create(accounts: Accounts, arguments: argparse.Namespace) -> None:
    """Create a key."""
    values = to_new_values(arguments)
    project = find_project(accounts, arguments.project)
    new = NewAccount(parent_id=None if project is None else project.id, **values)
    _print_secret(*accounts.manager.create_key(new), as_json=arguments.json)


def run_list(accounts: Accounts, arguments: argparse.Namespace) -> None:
    """Print all keys, or those of a project."""
    project = find_project(accounts, arguments.project)
    keys = list(all_of(accounts, "key", None if project is None else project.id))
    if arguments.json:
        print_json([to_object(key) for key in keys])
    else:
        print_table([_to_row(key) for key in keys], "There are no keys.")


def run_show(accounts: Accounts, arguments: argparse.Namespace) -> None:
    """Print one key."""
    key = accounts.manager.get("key", arguments.id)
    if arguments.json:
        print_json(to_object(key))
        return
    policy = {name: value for name, value in key.policy.to_object().items() if value}
    for name, value in {**_to_row(key), "TAGS": ", ".join(key.tags), "POLICY": json.dumps(policy)}.items():
        print(f"{name.lower():<8} {value}".rstrip())


def run_revoke(accounts: Accounts, arguments: argparse.Namespace) -> None:
    """Delete a key."""
    key = accounts.manager.get("key", arguments.id)
    accounts.manager.delete(key)
    print(f"{key.id} ({key.name}) is revoked. Running servers refuse it within a second.")


def run_rotate(accounts: Accounts, arguments: argparse.Namespace) -> None:
    """Give a key another secret."""
    _print_secret(*accounts.manager.rotate_key(arguments.id, arguments.overlap), as_json=arguments.json)


def _print_secret(key: Account, secret: str, *, as_json: bool) -> None:
    """Print a secret alone on standard output, so that a shell can assign it, and the explanation beside it."""
    if as_json:
        print_json({**to_object(key), "value": secret})
        return
    print(f"{key.id} ({key.name}). Keep the key, as it is not shown again:", file=sys.stderr)
    print(secret)


def _to_row(key: Account) -> Mapping[str, str]:
    state = "valid" if key.is_valid(time.time()) else "expired" if key.is_enabled else "disabled"
    return {
        "ID": key.id,
        "NAME": key.name,
        "PROJECT": key.parent_id or "",
        "KEY": key.hint or "",
        "STATE": state,
        "EXPIRES": format_time(key.expires_at),
    }
