"""Options of a model that transformers runs on this machine, as the models file, the engine and its loader use them.

This module does not import torch, because workers use it too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal, Self

from openai_compat.backends.local.options import PooledModel, SharedOptions, check_one_of
from openai_compat.core.settings import ModelConfig, Settings

DEVICES: Final = ("auto", "cpu", "cuda", "mps")
DTYPES: Final = ("auto", "float32", "float16", "bfloat16")
QUANTIZATIONS: Final = ("int8",)


@dataclass(frozen=True, kw_only=True)
class LocalModelOptions(SharedOptions):
    """The keys of a model config of kind `huggingface`, besides the common ones.

    Of the shared keys, `temperature` and `top_p` are by default what the model's makers recommend, and
    `default_max_tokens` is 1024 for a chat and 16 for a completion.
    `quantize` chooses a faster forward pass.
    """

    dtype: str = "auto"
    device: str = "auto"
    trust_remote_code: bool = False
    quantize: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.hf_repo:
            raise ValueError("needs a `hf_repo`: a name on the Hugging Face hub, or a folder")
        if not isinstance(self.trust_remote_code, bool):
            raise ValueError("trust_remote_code must be true or false")
        check_one_of("dtype", self.dtype, DTYPES)
        _check_device(self.device)
        if self.quantize is not None:
            check_one_of("quantize", self.quantize, QUANTIZATIONS)

    @property
    def hub_files(self) -> tuple[str, ...] | None:
        return None if self.gguf_file is None else (self.gguf_file, "*.json", "*.txt", "*.model", "*.jinja")


@dataclass(frozen=True, kw_only=True)
class LocalModel(LocalModelOptions, PooledModel):
    """One model of the engine that transformers runs.


    `tools` and `response_format` are those of the model config.
    """

    kind = "huggingface"
    extra = "local"

    tools: Literal["drop", "prompt"] | None = None
    response_format: Literal["prompt"] | None = None

    @classmethod
    def from_entry(cls, entry: ModelConfig, settings: Settings) -> Self:
        model = replace(super().from_entry(entry, settings), tools=entry.tools, response_format=entry.response_format)
        uses_default = model.device == "auto" and settings.default_device != "auto"
        return replace(model, device=settings.default_device) if uses_default else model


def _check_device(device: object) -> None:
    """Check the kind of device, with or without the number of one device, as in `cuda:1`."""
    kind = device.partition(":")[0] if isinstance(device, str) else device
    check_one_of("device", kind, DEVICES)
