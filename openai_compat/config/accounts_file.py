"""Parser of the accounts file, which describes the organization, projects and keys. It collects every problem."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any, Final

import yaml
from marshmallow import ValidationError, fields, post_load, validates_schema

from openai_compat.accounts.keys import digest_of, hint_of
from openai_compat.accounts.policy import PolicyError, parse_policy
from openai_compat.core.settings import DeclaredAccount

from .fields import Switch
from .strict_schema import StrictSchema, to_sentences
from .strict_yaml import parse_file

MIN_SECRET_CHARS: Final = 16
"""Length of a key below which it could be guessed."""
MAX_NAME_CHARS: Final = 200
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


class Expiry(fields.Field[Any]):
    """A day, which begins at midnight UTC, or a Unix time."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> int:
        if isinstance(value, datetime):
            return int((value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp())
        if isinstance(value, date):
            return int(datetime.combine(value, time(), UTC).timestamp())
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
        raise ValidationError("must be a day such as 2027-01-31 or a Unix time")


class PolicyField(fields.Dict):
    """A policy, which stays as it is written once it was checked."""

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> Any:
        policy = super()._deserialize(value, attr, data, **kwargs)  # type: ignore[no-untyped-call]
        try:
            parse_policy(policy)
        except PolicyError as error:
            raise ValidationError(f"is wrong: {str(error).removesuffix('.')}") from error
        return policy


class AccountSchema(StrictSchema):
    """What an organization, a project and a key have in common."""

    name = fields.String()
    enabled = Switch()
    expires_at = Expiry()
    policy = PolicyField()
    metadata = fields.Dict(keys=fields.String(), values=fields.String())
    tags = fields.List(fields.String())

    @validates_schema
    def check_name(self, data: Mapping[str, Any], **_: Any) -> None:
        """Raise ValidationError if the name is no name."""
        name = data.get("name")
        if name is not None and not (0 < len(name) <= MAX_NAME_CHARS and name.isprintable() and name.strip()):
            raise ValidationError({"name": [f"must have 1 to {MAX_NAME_CHARS} printable characters"]})


class KeySchema(AccountSchema):
    """A key, with the variable that has its secret, or the SHA-256 of it."""

    name = fields.String(required=True)
    key_env = fields.String()
    key_sha256 = fields.String()

    @validates_schema(skip_on_field_errors=True)
    def check_secret(self, data: Mapping[str, Any], **_: Any) -> None:
        """Raise ValidationError unless there is exactly one of the two."""
        if ("key_env" in data) == ("key_sha256" in data):
            raise ValidationError("must have either key_env or key_sha256")
        if not _DIGEST.fullmatch(data.get("key_sha256", "0" * 64)):
            raise ValidationError({"key_sha256": ["must have 64 hexadecimal digits in lower case"]})


class ProjectSchema(AccountSchema):
    """A project with its keys."""

    name = fields.String(required=True)
    keys = fields.List(fields.Nested(KeySchema))


class FileSchema(StrictSchema):
    """The complete file."""

    organization = fields.Nested(AccountSchema)
    projects = fields.List(fields.Nested(ProjectSchema))

    @post_load
    def fill(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Return the file with both of its parts."""
        return {"organization": data.get("organization"), "projects": data.get("projects", [])}


def read_accounts(path: str, environ: Mapping[str, str], problems: list[str]) -> tuple[DeclaredAccount, ...]:
    """Return the accounts that the file describes, parents first. Every problem adds a sentence to `problems`."""
    try:
        content = parse_file(Path(path))
    except (OSError, ValueError, yaml.YAMLError) as error:
        problems.append(f"ACCOUNTS_FILE cannot be read: {getattr(error, 'strerror', None) or error}")
        return ()
    try:
        file = FileSchema().load({} if content is None else content)
    except ValidationError as error:
        messages: Any = error.messages
        problems += to_sentences("ACCOUNTS_FILE", messages)
        return ()
    accounts = tuple(_declare(file, environ, problems))
    problems += _find_repetitions(accounts)
    return accounts


def _declare(file: Mapping[str, Any], environ: Mapping[str, str], problems: list[str]) -> Iterator[DeclaredAccount]:
    if file["organization"] is not None:
        yield _to_account("organization", file["organization"])
    for project in file["projects"]:
        yield _to_account("project", project)
        for key in project.get("keys", ()):
            digest, hint = _read_secret(key, environ, problems)
            yield _to_account("key", key, project=project["name"], digest=digest, hint=hint)


def _to_account(kind: str, values: Mapping[str, Any], **others: Any) -> DeclaredAccount:
    return DeclaredAccount(
        kind,
        values.get("name", "Default organization"),
        policy=values.get("policy", {}),
        expires_at=values.get("expires_at"),
        is_enabled=values.get("enabled", True),
        metadata=values.get("metadata", {}),
        tags=tuple(values.get("tags", ())),
        **others,
    )


def _read_secret(key: Mapping[str, Any], environ: Mapping[str, str], problems: list[str]) -> tuple[str, str]:
    """Return the digest of a key's secret, and the part of the secret that may be shown."""
    if "key_sha256" in key:
        return key["key_sha256"], f"sha256:{key['key_sha256'][:8]}"
    secret = environ.get(key["key_env"], "").strip()
    if len(secret) < MIN_SECRET_CHARS:
        found = f"has fewer than {MIN_SECRET_CHARS} characters" if secret else "is not set"
        problems.append(f"ACCOUNTS_FILE: {key['key_env']}, which key '{key['name']}' names, {found}")
    return digest_of(secret), hint_of(secret)


def _find_repetitions(accounts: tuple[DeclaredAccount, ...]) -> Iterator[str]:
    """Yield a sentence for each name that stands twice among the projects or the keys of one project."""
    seen: set[tuple[str, str | None, str]] = set()
    digests: set[str] = set()
    for account in accounts:
        place = (account.kind, account.project, account.name)
        if place in seen:
            yield f"ACCOUNTS_FILE: the {account.kind} '{account.name}' stands twice"
        if account.digest is not None and account.digest in digests:
            yield f"ACCOUNTS_FILE: the key '{account.name}' has the same secret as another one"
        seen.add(place)
        digests |= {account.digest} if account.digest else set()
