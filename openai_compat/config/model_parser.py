"""Parser of the models file. It collects every problem and raises none."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Set
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import yaml
from marshmallow import EXCLUDE, ValidationError

from openai_compat.backends.base import Backend, option_names
from openai_compat.backends.huggingface.presets import PRESETS
from openai_compat.backends.local.engine_config import LOCAL_KINDS
from openai_compat.backends.registry import load_backend_class
from openai_compat.core.hooks import Hooks, load_hooks
from openai_compat.core.prices import parse_price
from openai_compat.core.profiles import PROFILES, Profile
from openai_compat.core.settings import VARIABLE, ModelConfig, Settings
from openai_compat.core.timeouts import Timeouts
from openai_compat.core.validators import is_header_name, is_header_value, parse_api_root, parse_url

from .aliases import SECTION, check_section
from .fields import kind_of_scalar
from .model_schema import COMMON_KEYS, AliasSchema, ModelSchema, ProfileSchema, schema_of
from .routes import to_policy
from .strict_schema import StrictSchema, to_sentences
from .strict_yaml import find_source, parse_file

ALIAS: Final = "alias"
"""Kind of a model that shares its calls among targets."""
API_ROOT_KINDS: Final = ("anthropic", "databricks", "haystack", "openai")
"""Kinds whose `base_url` is the root of an API, below which the endpoints are."""
COPIED: Final = (
    "upstream_model", "owned_by", "created", "metadata", "context_window", "max_output_tokens", "assistant_prefill",
    "tools", "response_format",
)  # fmt: skip
"""Keys with the same name and value as a field of `ModelConfig`."""
OWN_ADDRESS_KINDS: Final = ("anthropic", "databricks")
"""Kinds that know the address of their upstream without a `base_url`."""
UPSTREAM_KINDS: Final = ("openai", "anthropic", "external", "databricks")
"""Kinds with an upstream, which a `base_url` shows for any other kind."""


class ModelsFileParser:
    """Parser of the file that `MODELS_FILE` names.

    The file is a list of models, or a mapping with `models`, `profiles` and `model_aliases`. Every problem adds a
    sentence to `problems`, and every former key in use a sentence to `renamed`. `invalid_names` contains the models
    with a wrong kind or wrong options.
    """

    def __init__(self, settings: Settings, environ: Mapping[str, str], problems: list[str], renamed: list[str]) -> None:
        self.settings = settings
        self.environ = environ
        self.problems = problems
        self.renamed = renamed
        self.profiles: dict[str, Profile] = dict(PROFILES)
        self.invalid_names: set[str] = set()
        self.aliases: dict[str, str] = {}

    def models(self) -> list[ModelConfig]:
        """Return the models of the file."""
        entries = [_with_capabilities(entry) for entry in self._read_file()]
        models = [self._numbered_model(index, entry) for index, entry in enumerate(entries)]
        return [model for model in models if model is not None]

    def presets(self, configured: Set[str]) -> list[ModelConfig]:
        """Return the models that come with this package, without those of a configured name."""
        models = [self._model(entry, "a preset") for entry in PRESETS if entry["name"] not in configured]
        return [model for model in models if model is not None]

    def load(self, schema: StrictSchema, data: Any, subject: str) -> tuple[dict[str, Any], Set[str]]:
        """Return the valid values of `data`, and the keys that have errors."""
        if isinstance(data, dict):
            self.renamed += [f"{subject}: {old} is now {new}" for old, new in schema.former_keys(data)]
        try:
            return schema.load(data), set()
        except ValidationError as error:
            messages: Any = error.messages
            self.problems += to_sentences(subject, messages)
            return error.valid_data, messages.keys()  # type: ignore[return-value]

    def to_profile(self, values: Mapping[str, Any], subject: str) -> Profile:
        """Return the profile that the valid `values` of a profile describe."""
        name = values.get("extends")
        if name is not None and name not in self.profiles:
            known = ", ".join(sorted(self.profiles))
            self.problems.append(f"{subject}: there is no profile '{name}'. Known profiles are {known}.")
        base = self.profiles.get(name or "", Profile())
        return Profile(
            drop=base.drop.union(values.get("drop", ())),
            rename={**base.rename, **values.get("rename", {})},
            emulate=base.emulate.union(values.get("emulate", ())),
            roles={**base.roles, **values.get("roles", {})},
            message_keys=base.message_keys,
            translate_responses=values.get("translate_responses", base.translate_responses),
            strict=values.get("strict", base.strict),
        )

    def _read_file(self) -> list[Any]:
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
            self._read_aliases(content.get(SECTION) or {})
            unknown = sorted(str(key) for key in content.keys() - {"models", "profiles", SECTION})
            if unknown:
                self.problems.append(f"MODELS_FILE: {path} has unknown sections: {', '.join(unknown)}")
            content = content.get("models")
        if not isinstance(content, list) or not content:
            self.problems.append(f"MODELS_FILE: {path} must be a list of models, or a mapping with `models:`")
            return []
        return content

    def _read_profiles(self, section: Any) -> None:
        """Read the profiles that several models use. A profile may extend those before it."""
        if not isinstance(section, dict):
            self.problems.append("profiles must be a mapping of names to profiles")
            return
        for name, value in section.items():
            subject = f"profile '{name}'"
            values, _ = self.load(ProfileSchema(), {"extends": value} if isinstance(value, str) else value, subject)
            self.profiles[str(name)] = self.to_profile(values, subject)

    def _read_aliases(self, section: Any) -> None:
        problems = list(check_section(section))
        self.problems += problems
        self.aliases = {} if problems else section

    def _numbered_model(self, index: int, entry: Any) -> ModelConfig | None:
        place = f"entry {index + 1} of the models file"
        name = entry.get("name") if isinstance(entry, dict) else None
        kind = kind_of_scalar(name)
        if kind is None:
            return self._model(entry, place)
        path = Path(self.settings.models_file or "")
        source = find_source(path, (index, "name")) or find_source(path, ("models", index, "name")) or str(name)
        self.problems.append(
            f'{place} has the name {source}, which without quotes is {kind}, not text. Write name: "{source}"'
        )
        return None

    def _model(self, entry: Any, place: str) -> ModelConfig | None:
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str) or not entry["name"].strip():
            self.problems.append(f"{place} needs a `name`")
            return None
        parser = _ModelParser(self, entry)
        return parser.parse_alias() if entry.get("targets") else parser.parse_model()


def _with_capabilities(entry: Any) -> Any:
    """Return the entry, by default with the capabilities of the preset of the same name and repository."""
    for preset in PRESETS:
        if isinstance(entry, dict) and all(entry.get(key) == preset[key] for key in ("name", "hf_repo")):
            return {"capabilities": preset["capabilities"], **entry}
    return entry


class _ModelParser:
    """Parser of one model of the file."""

    def __init__(self, file: ModelsFileParser, entry: Mapping[str, Any]) -> None:
        self._file = file
        self._entry = entry
        self._name: str = entry["name"]
        self._subject = f"model '{self._name}'"
        self._values: Mapping[str, Any] = {}

    def parse_alias(self) -> ModelConfig:
        """Return a model that shares its calls among targets."""
        self._values, _ = self._file.load(AliasSchema(), self._entry, self._subject)
        return ModelConfig(self._name, ALIAS, routing=to_policy(self._values), **self._copied())

    def parse_model(self) -> ModelConfig | None:
        """Return a model of a kind, or None if its `kind` is missing."""
        kind = self._entry.get("kind") or ("huggingface" if "hf_repo" in self._entry else None)
        if not isinstance(kind, str):
            self._file.problems.append(f"{self._subject} needs a `kind`")
            return None
        backend_class, options = self._read_options(kind)
        routed = self._routed_timeouts(kind)
        model = ModelConfig(
            self._name,
            kind,
            base_url=self._base_url(kind),
            api_key=self._api_key(),
            headers=self._headers(),
            timeouts=routed if routed and self._values.get("fallbacks") else self._timeouts(),
            routed_timeouts=routed,
            max_concurrent=self._max_concurrent(kind),
            options=options,
            price=parse_price(self._values["price"]) if "price" in self._values else None,
            profile=self._profile(),
            hooks=self._hooks(),
            variables=self._variables(options) if backend_class and backend_class.takes_variables else {},
            routing=to_policy(self._values),
            **self._copied(),
        )
        if backend_class is None:
            self._file.invalid_names.add(self._name)
            return model
        for problem in validate(model, self._file.settings):
            self._report(problem)
        return model

    def _read_options(self, kind: str) -> tuple[type[Backend] | None, dict[str, Any]]:
        """Read the values by the schema of the kind. Return its class and options, or None and {} if they are wrong."""
        try:
            backend_class = load_backend_class(kind)
        except ValueError as error:
            self._report(str(error))
            self._values, _ = self._file.load(ModelSchema(unknown=EXCLUDE), self._entry, self._subject)
            return None, {}
        self._values, wrong = self._file.load(schema_of(backend_class), self._entry, self._subject)
        names = set(option_names(backend_class)) - COMMON_KEYS
        options = {key: value for key, value in self._entry.items() if key in names}
        if wrong & {*names, "_schema"}:
            return None, {}
        problem = option_error(backend_class, options)
        if problem:
            self._report(problem)
        return (None, {}) if problem else (backend_class, options)

    def _report(self, problem: str) -> None:
        self._file.problems.append(f"{self._subject}: {problem}")

    def _copied(self) -> dict[str, Any]:
        return {key: self._values[key] for key in COPIED if key in self._values}

    def _base_url(self, kind: str) -> str | None:
        text = self._values.get("base_url")
        if text is None:
            is_needed = kind == "openai" or (kind == "external" and not _has_own_url(self._entry))
            if is_needed and self._entry.get("base_url") is None:
                self._report(f"kind {kind} needs a `base_url`")
            return None
        if kind in LOCAL_KINDS:
            self._report(f"kind {kind} runs here, and a server behind a `base_url` is of kind openai")
        parse = parse_api_root if kind in API_ROOT_KINDS else parse_url
        try:
            return parse(self._expand(text, "base_url"))
        except ValueError as error:
            self._report(f"base_url {error}")
            return None

    def _api_key(self) -> str | None:
        name = self._values.get("api_key_env")
        return self._checked(self._variable(name, "api_key_env"), "api_key_env") if name else None

    def _headers(self) -> dict[str, str]:
        headers = {str(name): str(value) for name, value in self._values.get("headers", {}).items()}
        for name in headers:
            if not is_header_name(name):
                self._report(f"headers: {name!r} cannot be the name of a header")
        expanded = {name: self._expand(value, f"header {name}") for name, value in headers.items()}
        return {name: self._checked(value, f"header {name}") for name, value in expanded.items()}

    def _checked(self, value: str, key: str) -> str:
        if not is_header_value(value):
            self._report(f"{key} must be made of printable ASCII characters")
        return value

    def _timeouts(self) -> Timeouts:
        return replace(self._file.settings.timeouts, **self._values.get("timeout", {}))

    def _routed_timeouts(self, kind: str) -> Timeouts | None:
        """Return the timeouts of a model with an upstream for routes with several models."""
        if kind not in UPSTREAM_KINDS and "base_url" not in self._entry:
            return None
        named = self._file.settings.named_timeouts | self._values.get("timeout", {}).keys()
        return self._timeouts().for_route(named)

    def _max_concurrent(self, kind: str) -> int:
        if "max_concurrent" in self._entry and "base_url" not in self._entry and kind not in OWN_ADDRESS_KINDS:
            self._report("max_concurrent counts the calls to a `base_url`, and there is none")
        limit: int = self._values.get("max_concurrent", self._file.settings.upstream_max_concurrent)
        return limit

    def _profile(self) -> Profile | None:
        values = self._values.get("profile")
        return None if values is None else self._file.to_profile(values, f"{self._subject}: profile")

    def _hooks(self) -> Hooks | None:
        try:
            return load_hooks(self._values["hooks"]) if "hooks" in self._values else None
        except ValueError as error:
            self._report(f"hooks: {error}")
            return None

    def _variables(self, options: Mapping[str, Any]) -> dict[str, str]:
        """Return the variables of the environment that the options and the URL name."""
        in_options = [(key, reference) for key, value in options.items() for reference in _references(value)]
        for key, reference in sorted(in_options, key=lambda found: (found[1][1], found[0])):
            self._value_of(reference, key)
        references = [*_references(self._values.get("base_url")), *(reference for _, reference in in_options)]
        names = sorted({reference[1] for reference in references})
        values = {name: self._file.environ.get(name, "").strip() for name in names}
        return {name: value for name, value in values.items() if value}

    def _expand(self, text: str, key: str) -> str:
        """Return `text` with the value of each `${NAME}` and `${NAME:-default}`."""
        return VARIABLE.sub(lambda reference: self._value_of(reference, key), text)

    def _value_of(self, reference: re.Match[str], key: str) -> str:
        """Return the value of a reference's variable, or its default. Report a variable without either."""
        name, default = reference.groups()
        if default is None:
            return self._variable(name, key)
        return self._file.environ.get(name, "").strip() or default

    def _variable(self, name: str, key: str) -> str:
        value = self._file.environ.get(name, "").strip()
        if not value:
            self._report(f"{key} names the environment variable {name}, which is not set")
        return value


def validate(model: ModelConfig, settings: Settings) -> list[str]:
    """Return the problems that the kind finds in a model with options of the right types."""
    backend_class = load_backend_class(model.kind)
    return list(backend_class.validate(model, backend_class.Options(**model.options), settings))


def option_error(backend_class: type[Backend], options: Mapping[str, Any]) -> str | None:
    """Return the problem that the kind finds in the options, or None."""
    try:
        backend_class.Options(**options)
    except (TypeError, ValueError) as error:
        return str(error)
    return None


def _has_own_url(entry: Mapping[str, Any]) -> bool:
    """Return True if the `request` of an external API contains the complete URL."""
    request = entry.get("request")
    return isinstance(request, dict) and isinstance(request.get("url"), str) and not request["url"].startswith("/")


def _references(value: Any) -> Iterator[re.Match[str]]:
    """Yield each reference to an environment variable in `value`."""
    if isinstance(value, str):
        yield from VARIABLE.finditer(value)
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _references(part)
