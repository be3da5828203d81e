"""What is configured for a model that runs here, as the engine process and its loader get to know it. Free of torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any, Final

DEVICES: Final = ("auto", "cpu", "cuda", "mps")
DTYPES: Final = ("auto", "float32", "float16", "bfloat16")
CAPABILITIES: Final = ("chat", "completions", "embeddings")
QUANTIZATIONS: Final = ("int8",)


@dataclass(frozen=True, kw_only=True)
class LocalModelOptions:
    """The keys of a row of kind `huggingface`, beside the common ones.

    `hf_repo` is a name on the hub or a local folder, `gguf_file` a GGUF file in it, `revision` a branch, tag or commit
    of the hub. `max_context_tokens` narrows the model's own window. `capabilities` (of `CAPABILITIES`) narrows what the
    model is asked for: empty, whatever it can do. `quantize` chooses a faster forward pass.
    `temperature` and `top_p` are for calls that say nothing of them (None: what the model's makers recommend).
    `max_batch` callers are answered at once; `queue_limit` more may wait (None: the setting's). A null is no key.
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
    max_batch: int = 16
    queue_limit: int | None = None

    def __post_init__(self) -> None:
        for option in fields(self):
            if getattr(self, option.name) is None and option.default is not MISSING:
                object.__setattr__(self, option.name, option.default)  # frozen
        if not self.hf_repo:
            raise ValueError("needs a `hf_repo`: a name on the Hugging Face hub, or a folder")
        for name in ("hf_repo", "gguf_file", "revision"):
            _check_text(name, getattr(self, name))
        for name in ("max_context_tokens", "max_batch"):
            _check_count(name, getattr(self, name), 1)
        _check_count("queue_limit", self.queue_limit, 0)
        _check_number("temperature", self.temperature, 2)
        _check_number("top_p", self.top_p, 1)
        if not isinstance(self.trust_remote_code, bool):
            raise ValueError("trust_remote_code must be true or false")
        _check_word("dtype", self.dtype, DTYPES)
        _check_device(self.device)
        if self.quantize is not None:
            _check_word("quantize", self.quantize, QUANTIZATIONS)
        object.__setattr__(self, "capabilities", _to_capabilities(self.capabilities))  # frozen


@dataclass(frozen=True, kw_only=True)
class LocalModel(LocalModelOptions):
    """One model of the engine: a row with the settings' defaults put in.

    `default_context_tokens` is the window where neither the row nor the model's own configuration says one.
    """

    name: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    default_context_tokens: int = 2048

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def _check_text(name: str, value: object) -> None:
    if value is not None and not (isinstance(value, str) and value.strip()):
        raise ValueError(f"{name} must be a text")


def _check_count(name: str, value: object, least: int) -> None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
        raise ValueError(f"{name} must be a whole number, {least} or more")


def _check_number(name: str, value: object, most: float) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is not None and not (is_number and 0 <= float(value) <= most):  # type: ignore[arg-type]
        raise ValueError(f"{name} must be a number from 0 to {most}")


def _check_word(name: str, value: object, words: tuple[str, ...]) -> None:
    if value not in words:
        raise ValueError(f"{name} must be one of {', '.join(words)}")


def _check_device(device: object) -> None:
    """`cuda:1` names one of several devices."""
    kind = device.partition(":")[0] if isinstance(device, str) else device
    _check_word("device", kind, DEVICES)


def _to_capabilities(value: object) -> tuple[str, ...]:
    """A list in a models file becomes the tuple that can be hashed."""
    if not isinstance(value, list | tuple) or not set(value) <= set(CAPABILITIES):
        raise ValueError(f"capabilities must be a list of {', '.join(CAPABILITIES)}")
    return tuple(value)
