"""Options of a model that llama.cpp runs on this machine, as the models file, the engine and its process use them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from glob import escape
from typing import Final

from openai_compat.backends.local.options import (
    PooledModel,
    SharedOptions,
    check_integer,
    check_one_of,
    check_string,
)

POOLINGS: Final = ("none", "mean", "cls", "last", "rank")
"""The ways in which llama.cpp makes one vector of those of an input's tokens."""
SHARD: Final = re.compile(r"-\d{5}-of-(\d{5}\.gguf)$")
"""End of the name of one file of a model that is split into several."""


@dataclass(frozen=True, kw_only=True)
class LlamaCppOptions(SharedOptions):
    """The keys of a model config of kind `llama_cpp`, besides the common ones.

    `gguf_file` is a path, or with `hf_repo` a file of that repository or folder. `mmproj_file` is a second one, with
    the projector for images and audio.
    `max_batch` is the number of slots, each with a context window of its own.
    `threads` compute (None: one for each core that may be used), and `gpu_layers` are the layers on a GPU (None: as
    many as fit).
    `pooling` is the kind of pooling for embeddings (None: the one that the file names).
    `chat_template_file` is a Jinja template in the place of the file's own.
    """

    max_batch: int = 4
    threads: int | None = None
    gpu_layers: int | None = None
    pooling: str | None = None
    mmproj_file: str | None = None
    chat_template_file: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.gguf_file:
            raise ValueError("needs a `gguf_file`: a path, or with `hf_repo` a file of that repository or folder")
        for name in ("mmproj_file", "chat_template_file"):
            check_string(name, getattr(self, name))
        check_integer("threads", self.threads, minimum=1)
        check_integer("gpu_layers", self.gpu_layers, minimum=0)
        if self.pooling is not None:
            check_one_of("pooling", self.pooling, POOLINGS)
        if "embeddings" in self.capabilities and len(self.capabilities) > 1:
            raise ValueError("capabilities: llama.cpp serves either embeddings or text with one model")

    @property
    def hub_files(self) -> tuple[str, ...]:
        names = (name for name in (self.gguf_file, self.mmproj_file) if name)
        return tuple(SHARD.sub(r"-*-of-\1", escape(name)) for name in names)


@dataclass(frozen=True, kw_only=True)
class LlamaCppModel(LlamaCppOptions, PooledModel):
    """One model of the engine that llama.cpp runs."""

    kind = "llama_cpp"
    extra = "llama-cpp"
