"""Options that all kinds of local models share, and the checks of their values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any, ClassVar, Final, Self

from openai_compat.core.settings import ModelConfig, Settings

CAPABILITIES: Final = ("chat", "completions", "embeddings")


@dataclass(frozen=True, kw_only=True)
class SharedOptions:
    """The keys of a model config that every kind of local model has. A null equals a missing key.

    `hf_repo` is a repository of the Hugging Face hub or a local folder, `gguf_file` a GGUF file in it, and `revision` a
    branch, tag or commit of the repository.
    `max_context_tokens` narrows the model's own context window.
    `capabilities` is the part of `CAPABILITIES` that the model is used for. Empty means all that it supports.
    `temperature` and `top_p` are the defaults for calls that send none.
    `default_max_tokens` limits the answer of a call that sends no limit.
    `max_batch` calls run at once, and `queue_limit` more may wait (None: the setting `LOCAL_MAX_QUEUED`).
    """

    hf_repo: str = ""
    gguf_file: str | None = None
    revision: str | None = None
    max_context_tokens: int | None = None
    capabilities: tuple[str, ...] = ()
    temperature: float | None = None
    top_p: float | None = None
    default_max_tokens: int | None = None
    max_batch: int = 16
    queue_limit: int | None = None

    def __post_init__(self) -> None:
        for option in fields(self):
            if getattr(self, option.name) is None and option.default is not MISSING:
                object.__setattr__(self, option.name, option.default)  # frozen
        for name in ("hf_repo", "gguf_file", "revision"):
            check_string(name, getattr(self, name) or None)
        for name in ("max_context_tokens", "default_max_tokens", "max_batch"):
            check_integer(name, getattr(self, name), minimum=1)
        check_integer("queue_limit", self.queue_limit, minimum=0)
        check_number("temperature", self.temperature, maximum=2)
        check_number("top_p", self.top_p, maximum=1)
        object.__setattr__(self, "capabilities", _to_capabilities(self.capabilities))  # frozen

    @property
    def hub_files(self) -> tuple[str, ...] | None:
        """Patterns of the repository's files that the model consists of, or None if they are not known."""
        return None


@dataclass(frozen=True, kw_only=True)
class PooledModel(SharedOptions):
    """One model of the engine, with the settings' defaults filled in.

    `default_context_tokens` is the context window if neither the model config nor the model's own files state one.
    """

    kind: ClassVar[str]
    extra: ClassVar[str]
    """The optional dependencies that the kind needs."""

    name: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    default_context_tokens: int = 2048

    @classmethod
    def from_entry(cls, entry: ModelConfig, settings: Settings) -> Self:
        """Return the model of a model config, with the settings' defaults where the config has no value."""
        return cls(
            name=entry.name,
            metadata=entry.metadata,
            default_context_tokens=settings.max_context_tokens,
            **entry.options,
        )

    @property
    def source(self) -> str:
        """The place that the weights come from, as the model config names it."""
        return self.hf_repo or self.gguf_file or ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def check_string(name: str, value: object) -> None:
    if value is not None and not (isinstance(value, str) and value.strip()):
        raise ValueError(f"{name} must be a non-empty string")


def check_integer(name: str, value: object, *, minimum: int) -> None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < minimum):
        raise ValueError(f"{name} must be a whole number, {minimum} or more")


def check_number(name: str, value: object, *, maximum: float) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is not None and not (is_number and 0 <= float(value) <= maximum):  # type: ignore[arg-type]
        raise ValueError(f"{name} must be a number from 0 to {maximum}")


def check_one_of(name: str, value: object, values: tuple[str, ...]) -> None:
    if value not in values:
        raise ValueError(f"{name} must be one of {', '.join(values)}")


def _to_capabilities(value: object) -> tuple[str, ...]:
    """Return the list of a models file as a tuple, which can be hashed."""
    if not isinstance(value, list | tuple) or not set(value) <= set(CAPABILITIES):
        raise ValueError(f"capabilities must be a list of {', '.join(CAPABILITIES)}")
    return tuple(value)
