"""The rows of the models file as `ModelConfig` values, with every problem collected and none raised."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

import yaml

from openai_compat.backends.base import Backend, option_names
from openai_compat.backends.huggingface.engine_config import KIND
from openai_compat.backends.huggingface.presets import PRESETS
from openai_compat.backends.registry import load_backend_class
from openai_compat.core.hooks import Hooks, load_hooks
from openai_compat.core.profiles import PROFILES, Profile, parse_profile
from openai_compat.core.settings import VARIABLE, ModelConfig, Settings, Timeouts
from openai_compat.core.validators import is_header_name, is_header_value, parse_seconds, parse_url

from .route_parser import ROUTE_KEYS, check_alias, read_policy, to_prefill, to_window
from .strict_yaml import parse_file

COMMON_KEYS = frozenset(
    {
        "name",
        "kind",
        "base_url",
        "upstream_model",
        "api_key_env",
        "headers",
        "timeout",
        "max_concurrent",
        "owned_by",
        "created",
        "metadata",
        "profile",
        "hooks",
        "context_window",
        "prefill",
        *ROUTE_KEYS,
    }
)
ALIAS: Final = "alias"
"""The kind of an entry whose targets answer for it."""


class ModelsFileParser:
    """Reads the file that `MODELS_FILE` names: a list of entries, or a mapping whose `models` is that list.

    `invalid_names` names the models whose kind or options are wrong, so that the kind can say no more of them.
    """

    def __init__(self, settings: Settings, environ: Mapping[str, str], problems: list[str]) -> None:
        self.settings = settings
        self.environ = environ
        self.problems = problems
        self.profiles: dict[str, Profile] = dict(PROFILES)
        self.invalid_names: set[str] = set()

    def entries(self) -> list[ModelConfig]:
        rows = self._rows()
        entries = [self._entry(row, f"entry {number} of the models file") for number, row in enumerate(rows, 1)]
        return [entry for entry in entries if entry is not None]

    def presets(self, configured: Set[str]) -> list[ModelConfig]:
        """The models that come with this package, but for those whose names have rows of their own."""
        rows = [row for row in PRESETS if row["name"] not in configured]
        entries = [self._entry(row, "a preset") for row in rows]
        return [entry for entry in entries if entry is not None]

    def _rows(self) -> list[Any]:
        if self.settings.models_file is None:
            return []
        path = Path(self.settings.models_file)
        try:
            content = parse_file(path)
        except (OSError, ValueError, yaml.YAMLError) as error:
            self.problems.append(f"MODELS_FILE: {path} cannot be read: {error}")
            return []
        if isinstance(content, dict):
            self._read_profiles(content.get("profiles") or {})
            unknown = sorted(str(key) for key in content.keys() - {"models", "profiles"})
            if unknown:
                self.problems.append(f"MODELS_FILE: {path} has unknown sections: {', '.join(unknown)}")
            content = content.get("models")
        if not isinstance(content, list) or not content:
            self.problems.append(f"MODELS_FILE: {path} must be a list of models, or a mapping with `models:`")
            return []
        return content

    def _read_profiles(self, section: Any) -> None:
        """Profiles that several rows name; one may extend those before it."""
        if not isinstance(section, dict):
            self.problems.append("profiles must be a mapping of names to profiles")
            return
        for name, value in section.items():
            profile = self._parsed_profile(value, f"profile '{name}'")
            if profile is not None:
                self.profiles[str(name)] = profile

    def _parsed_profile(self, value: Any, where: str) -> Profile | None:
        try:
            return parse_profile(value, self.profiles)
        except ValueError as error:
            self.problems.append(f"{where}: {error}")
            return None

    def _profile(self, row: Mapping[str, Any], where: str) -> Profile | None:
        value = row.get("profile")
        return None if value is None else self._parsed_profile(value, f"{where}: profile")

    def _hooks(self, row: Mapping[str, Any], where: str) -> Hooks | None:
        try:
            return None if row.get("hooks") is None else load_hooks(row["hooks"])
        except ValueError as error:
            self.problems.append(f"{where}: hooks: {error}")
            return None

    def _entry(self, row: Any, where: str) -> ModelConfig | None:
        if not isinstance(row, dict) or not isinstance(row.get("name"), str) or not row["name"].strip():
            self.problems.append(f"{where} needs a `name`")
            return None
        where = f"model '{row['name']}'"
        if row.get("targets"):
            return self._alias(row, where)
        kind = row.get("kind") or ("huggingface" if "hf_repo" in row else None)
        if not isinstance(kind, str):
            self.problems.append(f"{where} needs a `kind`")
            return None
        options = {key: value for key, value in row.items() if key not in COMMON_KEYS}
        backend_class = self._checked_class(kind, options, where)
        if "max_concurrent" in row and "base_url" not in row and kind != "databricks":
            self.problems.append(f"{where}: max_concurrent counts the calls to a `base_url`, and there is none")
        entry = ModelConfig(
            name=row["name"],
            kind=kind,
            base_url=self._url(row, kind, where),
            upstream_model=self._text(row, "upstream_model", where),
            api_key=self._secret(row, where),
            headers=self._headers(row, where),
            timeouts=self._timeouts(row, where),
            max_concurrent=self._number(
                row, "max_concurrent", "a number of calls, 0 for no limit", where, self.settings.upstream_max_concurrent
            ),
            owned_by=self._text(row, "owned_by", where) or "openai-compat",
            created=self._number(row, "created", "a time in Unix seconds", where, 0),
            metadata=self._mapping(row, "metadata", where),
            options=options,
            profile=self._profile(row, where),
            hooks=self._hooks(row, where),
            variables=self._variables(row, options, where) if backend_class and backend_class.takes_variables else {},
            routing=read_policy(row, where, self.problems),
            context_window=self._parsed(row, "context_window", to_window, where),
            assistant_prefill=self._parsed(row, "prefill", to_prefill, where),
        )
        if backend_class is None:
            self.invalid_names.add(entry.name)
        else:
            self.problems += [f"{where}: {problem}" for problem in validate(entry, self.settings)]
        return entry

    def _alias(self, row: Mapping[str, Any], where: str) -> ModelConfig:
        check_alias(row, where, self.problems)
        return ModelConfig(
            name=row["name"],
            kind=ALIAS,
            owned_by=self._text(row, "owned_by", where) or "openai-compat",
            created=self._number(row, "created", "a time in Unix seconds", where, 0),
            metadata=self._mapping(row, "metadata", where),
            routing=read_policy(row, where, self.problems),
        )

    def _parsed(self, row: Mapping[str, Any], key: str, parse: Callable[[Any], Any], where: str) -> Any:
        try:
            return None if row.get(key) is None else parse(row[key])
        except ValueError as error:
            self.problems.append(f"{where}: {key} {error}")
            return None

    def _checked_class(self, kind: str, options: Mapping[str, Any], where: str) -> type[Backend] | None:
        """The kind's class, if it takes the options."""
        try:
            backend_class = load_backend_class(kind)
        except ValueError as error:
            self.problems.append(f"{where}: {error}")
            return None
        known = option_names(backend_class)
        unknown = sorted(str(key) for key in options.keys() - set(known))
        if unknown:
            listed = ", ".join(sorted([*COMMON_KEYS, *known]))
            similar = get_close_matches(unknown[0], [*COMMON_KEYS, *known], n=1)
            hint = f"did you mean {similar[0]}? " if similar else ""
            self.problems.append(f"{where} has unknown keys: {', '.join(unknown)} ({hint}Known are {listed})")
            return None
        wrong = option_error(backend_class, options)
        if wrong:
            self.problems.append(f"{where}: {wrong}")
            return None
        return backend_class

    def _variables(self, row: Mapping[str, Any], options: Mapping[str, Any], where: str) -> dict[str, str]:
        """The environment's values that the options name, wherever in them, and those of the address."""
        found = {(name, key) for key, value in options.items() for name in _named_variables(value)}
        of_address = {name: self.environ.get(name, "").strip() for name in _named_variables(row.get("base_url"))}
        return of_address | {name: self._variable(name, key, where) for name, key in sorted(found)}

    def _text(self, row: Mapping[str, Any], key: str, where: str) -> str | None:
        value = row.get(key)
        if value is not None and not isinstance(value, str):
            self.problems.append(f"{where}: {key} must be a text")
            return None
        return value

    def _mapping(self, row: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
        value = row.get(key) or {}
        if not isinstance(value, dict):
            self.problems.append(f"{where}: {key} must be a mapping")
            return {}
        return value

    def _number(self, row: Mapping[str, Any], key: str, what: str, where: str, default: int) -> int:
        value = row.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            self.problems.append(f"{where}: {key} must be {what}")
            return default
        return value

    def _url(self, row: Mapping[str, Any], kind: str, where: str) -> str | None:
        text = self._text(row, "base_url", where)
        if text is None:
            if kind == "openai" or (kind == "external" and not _has_own_url(row)):
                self.problems.append(f"{where}: kind {kind} needs a `base_url`")
            return None
        if kind == KIND:
            self.problems.append(f"{where}: kind {KIND} runs here; what runs behind a `base_url` is of kind openai")
        try:
            return parse_url(self._expand(text, "base_url", where))
        except ValueError as error:
            self.problems.append(f"{where}: base_url {error}")
            return None

    def _secret(self, row: Mapping[str, Any], where: str) -> str | None:
        variable = self._text(row, "api_key_env", where)
        return (
            self._sendable(self._variable(variable, "api_key_env", where), "api_key_env", where) if variable else None
        )

    def _headers(self, row: Mapping[str, Any], where: str) -> dict[str, str]:
        headers = {str(name): str(value) for name, value in self._mapping(row, "headers", where).items()}
        unusable = [name for name in headers if not is_header_name(name)]
        if unusable:
            self.problems += [f"{where}: {name!r} cannot be the name of a header" for name in unusable]
            return {}
        expanded = {name: self._expand(value, f"header {name}", where) for name, value in headers.items()}
        return {name: self._sendable(value, f"header {name}", where) for name, value in expanded.items()}

    def _sendable(self, value: str, key: str, where: str) -> str:
        if not is_header_value(value):
            self.problems.append(f"{where}: {key} must be made of printable ASCII characters")
        return value

    def _expand(self, text: str, key: str, where: str) -> str:
        """Puts the environment's values in for `${NAME}`."""
        return VARIABLE.sub(lambda match: self._variable(match[1], key, where), text)

    def _variable(self, name: str, key: str, where: str) -> str:
        value = self.environ.get(name, "").strip()
        if not value:
            self.problems.append(f"{where}: {key} names the environment variable {name}, which is not set")
        return value

    def _timeouts(self, row: Mapping[str, Any], where: str) -> Timeouts:
        """`timeout: 30` bounds the whole call; a mapping sets the limits one by one."""
        value = row.get("timeout", {})
        limits = value if isinstance(value, dict) else {"total": value}
        names = {limit.name for limit in fields(Timeouts)}
        if limits.keys() - names:
            self.problems.append(f"{where}: timeout takes a number of seconds, or {', '.join(sorted(names))}")
            return self.settings.timeouts
        try:
            seconds = {name: parse_seconds(limit) for name, limit in limits.items()}
            if seconds.get("first_token"):  # which cannot come before the first byte
                seconds.setdefault("first_byte", seconds["first_token"])
            return replace(self.settings.timeouts, **seconds)
        except (TypeError, ValueError):
            self.problems.append(f"{where}: timeout must be a number of seconds, 0 or more")
            return self.settings.timeouts


def validate(entry: ModelConfig, settings: Settings) -> list[str]:
    """The kind's own sentences on an entry whose options are of the right types."""
    backend_class = load_backend_class(entry.kind)
    return list(backend_class.validate(entry, backend_class.Options(**entry.options), settings))


def option_error(backend_class: type[Backend], options: Mapping[str, Any]) -> str | None:
    """The kind's own sentence on options that it does not take."""
    try:
        backend_class.Options(**options)
    except (TypeError, ValueError) as error:
        return str(error)
    return None


def _has_own_url(row: Mapping[str, Any]) -> bool:
    """Whether a row of kind `external` says in its `request` where the call goes."""
    request = row.get("request")
    return isinstance(request, dict) and isinstance(request.get("url"), str) and not request["url"].startswith("/")


def _named_variables(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield from (match[1] for match in VARIABLE.finditer(value))
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _named_variables(part)
