"""Options of a model that runs on this machine, as the models file, the engine and its loader use them.

This module does not import torch, because workers use it too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any, Final, Literal

DEVICES: Final = ("auto", "cpu", "cuda", "mps")
DTYPES: Final = ("auto", "float32", "float16", "bfloat16")
CAPABILITIES: Final = ("chat", "completions", "embeddings")
QUANTIZATIONS: Final = ("int8",)


@dataclass(frozen=True, kw_only=True)
class LocalModelOptions:
    """The keys of a model config of kind `huggingface`, besides the common ones. A null equals a missing key.

    `hf_repo` is a repository of the Hugging Face hub or a local folder, `gguf_file` a GGUF file in it, and `revision` a
    branch, tag or commit of the repository.
    `max_context_tokens` narrows the model's own context window.
    `capabilities` is the part of `CAPABILITIES` that the model is used for. Empty means all that it supports.
    `quantize` chooses a faster forward pass.
    `temperature` and `top_p` are the defaults for calls that send none (None: those that the model's makers recommend).
    `default_max_tokens` limits the answer of a call that sends no limit (None: 1024 for a chat, 16 for completions).
    `max_batch` calls run at once, and `queue_limit` more may wait (None: the setting `LOCAL_MAX_QUEUED`).
    """

    hf_repo: str = ""
    gguf_file: str | None = None
    revision: str | None = None
    dtype: str = "auto"
    device: str = "auto"
    max_context_tokens: int | None = None
    trust_remote_code: bool = False
    capabilities: tuple[str, ...] = ()
    quantize: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    default_max_tokens: int | None = None
    max_batch: int = 16
    queue_limit: int | None = None

    def __post_init__(self) -> None:
        for option in fields(self):
            if getattr(self, option.name) is None and option.default is not MISSING:
                object.__setattr__(self, option.name, option.default)  # frozen
        if not self.hf_repo:
            raise ValueError("needs a `hf_repo`: a name on the Hugging Face hub, or a folder")
        for name in ("hf_repo", "gguf_file", "revision"):
            _check_string(name, getattr(self, name))
        for name in ("max_context_tokens", "default_max_tokens", "max_batch"):
            _check_integer(name, getattr(self, name), minimum=1)
        _check_integer("queue_limit", self.queue_limit, minimum=0)
        _check_number("temperature", self.temperature, maximum=2)
        _check_number("top_p", self.top_p, maximum=1)
        if not isinstance(self.trust_remote_code, bool):
            raise ValueError("trust_remote_code must be true or false")
        _check_one_of("dtype", self.dtype, DTYPES)
        _check_device(self.device)
        if self.quantize is not None:
            _check_one_of("quantize", self.quantize, QUANTIZATIONS)
        object.__setattr__(self, "capabilities", _to_capabilities(self.capabilities))  # frozen


@dataclass(frozen=True, kw_only=True)
class LocalModel(LocalModelOptions):
    """One model of the engine, with the settings' defaults filled in.

    `default_context_tokens` is the context window if neither the model config nor the model's own files state one.
    `tools` and `response_format` are those of the model config.
    """

    name: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    default_context_tokens: int = 2048
    tools: Literal["drop", "prompt"] | None = None
    response_format: Literal["prompt"] | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def _check_string(name: str, value: object) -> None:
    if value is not None and not (isinstance(value, str) and value.strip()):
        raise ValueError(f"{name} must be a non-empty string")


def _check_integer(name: str, value: object, *, minimum: int) -> None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < minimum):
        raise ValueError(f"{name} must be a whole number, {minimum} or more")


def _check_number(name: str, value: object, *, maximum: float) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is not None and not (is_number and 0 <= float(value) <= maximum):  # type: ignore[arg-type]
        raise ValueError(f"{name} must be a number from 0 to {maximum}")


def _check_one_of(name: str, value: object, values: tuple[str, ...]) -> None:
    if value not in values:
        raise ValueError(f"{name} must be one of {', '.join(values)}")


def _check_device(device: object) -> None:
    """Check the kind of device, with or without the number of one device, as in `cuda:1`."""
    kind = device.partition(":")[0] if isinstance(device, str) else device
    _check_one_of("device", kind, DEVICES)


def _to_capabilities(value: object) -> tuple[str, ...]:
    """Return the list of a models file as a tuple, which can be hashed."""
    if not isinstance(value, list | tuple) or not set(value) <= set(CAPABILITIES):
        raise ValueError(f"capabilities must be a list of {', '.join(CAPABILITIES)}")
    return tuple(value)
