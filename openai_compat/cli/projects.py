"""Command `projects`, which creates and lists projects, the groups of keys with common limits and budgets."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from openai_compat.accounts.account import Account
from openai_compat.accounts.account_objects import to_object
from openai_compat.accounts.manager import NewAccount
from openai_compat.accounts.service import Accounts

from .account_access import (
    add_policy_arguments,
    all_of,
    command,
    format_time,
    print_json,
    print_table,
    to_new_values,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the actions of `projects`."""
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    create = actions.add_parser("create", help="create a project")
    create.add_argument("name", metavar="NAME", help="a name for people")
    add_policy_arguments(create)
    create.set_defaults(run=command(run_create))
    listing = actions.add_parser("list", help="list the projects")
    listing.set_defaults(run=command(run_list))
    for action in (create, listing):
        action.add_argument("--json", action="store_true", help="print JSON")


def run_create(accounts: Accounts, arguments: argparse.Namespace) -> None:
    """Create a project."""
    project = accounts.manager.create("project", NewAccount(**to_new_values(arguments)))
    if arguments.json:
        print_json(to_object(project))
    else:
        print(f"{project.id} ({project.name})")


def run_list(accounts: Accounts, arguments: argparse.Namespace) -> None:
    """Print all projects."""
    projects = list(all_of(accounts, "project"))
    if arguments.json:
        print_json([to_object(project) for project in projects])
    else:
        print_table([_to_row(project) for project in projects], "There are no projects.")


def _to_row(project: Account) -> Mapping[str, str]:
    return {
        "ID": project.id,
        "NAME": project.name,
        "STATE": "active" if project.is_enabled else "archived",
        "EXPIRES": format_time(project.expires_at),
    }
