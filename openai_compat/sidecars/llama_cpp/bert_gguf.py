"""Conversion of small BERT encoders from safetensors to GGUF, without the libraries that were made for it.

llama.cpp's own converter needs torch, which is a hundred times as large as these models.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

ALIGNMENT: Final = 32
VERSION: Final = 3
UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9
"""Types of metadata."""
F32, F16 = 0, 1
"""Types of tensors."""
MEAN_POOLING: Final = 1
NORMAL_TOKEN: Final = 1
PARTS: Final = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}
"""Name of a part of a layer -> its name in GGUF."""
EMBEDDINGS: Final = {
    "embeddings.word_embeddings.weight": "token_embd.weight",
    "embeddings.position_embeddings.weight": "position_embd.weight",
    "embeddings.token_type_embeddings.weight": "token_types.weight",
    "embeddings.LayerNorm.weight": "token_embd_norm.weight",
    "embeddings.LayerNorm.bias": "token_embd_norm.bias",
}
ADDED: Final = ("position_embd.weight", "token_types.weight")
WORD_START: Final = "\u2581"
"""Mark of GGUF at the beginning of a word. WordPiece marks the other parts of words, with `##`."""


@dataclass(frozen=True)
class Tensor:
    """A tensor of the target file. `start` and `end` are its place among the tensors of the source."""

    name: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def kind(self) -> int:
        """Matrices have 16 bits a number. What llama.cpp adds to others has 32, as it requires."""
        return F16 if len(self.shape) > 1 and self.name not in ADDED else F32

    @property
    def size(self) -> int:
        """Bytes in the target file."""
        return (self.end - self.start) // (2 if self.kind == F16 else 1)


def convert_bert(folder: Path, target: Path) -> None:
    """Write the encoder in `folder` as a GGUF file, which appears when it is complete.

    Raises:
        OSError: a file cannot be read or written.
        ValueError: it is no BERT encoder with 32-bit weights.
    """
    config = json.loads((folder / "config.json").read_text())
    vocabulary = (folder / "vocab.txt").read_text().splitlines()
    partial = target.with_suffix(".partial")
    with (folder / "model.safetensors").open("rb") as source, partial.open("wb") as file:
        tensors, base = _read_tensors(source)
        metadata = _metadata(config, vocabulary)
        file.write(b"GGUF" + struct.pack("<IQQ", VERSION, len(tensors), len(metadata)) + b"".join(metadata))
        file.write(b"".join(_tensor_infos(tensors)))
        for tensor in tensors:
            _pad(file)
            source.seek(base + tensor.start)
            file.write(_to_data(tensor, source.read(tensor.end - tensor.start)))
    partial.replace(target)


def _metadata(config: Mapping[str, Any], vocabulary: list[str]) -> list[bytes]:
    """Return the encoded entries of the metadata, with the names that llama.cpp reads."""
    ids = {token: number for number, token in enumerate(vocabulary)}
    return [
        _entry("general.architecture", STRING, "bert"),
        _entry("general.name", STRING, "all-MiniLM-L6-v2"),
        _entry("bert.context_length", UINT32, config["max_position_embeddings"]),
        _entry("bert.embedding_length", UINT32, config["hidden_size"]),
        _entry("bert.block_count", UINT32, config["num_hidden_layers"]),
        _entry("bert.feed_forward_length", UINT32, config["intermediate_size"]),
        _entry("bert.attention.head_count", UINT32, config["num_attention_heads"]),
        _entry("bert.attention.layer_norm_epsilon", FLOAT32, config["layer_norm_eps"]),
        _entry("bert.attention.causal", BOOL, value=False),
        _entry("bert.pooling_type", UINT32, MEAN_POOLING),
        _entry("tokenizer.ggml.model", STRING, "bert"),
        _entry("tokenizer.ggml.token_type_count", UINT32, config["type_vocab_size"]),
        _entry_of_list("tokenizer.ggml.tokens", STRING, [_to_gguf_token(token) for token in vocabulary]),
        _entry_of_list("tokenizer.ggml.token_type", INT32, [NORMAL_TOKEN] * len(vocabulary)),
        _entry("tokenizer.ggml.bos_token_id", UINT32, ids["[CLS]"]),
        _entry("tokenizer.ggml.seperator_token_id", UINT32, ids["[SEP]"]),
        _entry("tokenizer.ggml.unknown_token_id", UINT32, ids["[UNK]"]),
        _entry("tokenizer.ggml.padding_token_id", UINT32, ids["[PAD]"]),
        _entry("tokenizer.ggml.cls_token_id", UINT32, ids["[CLS]"]),
        _entry("tokenizer.ggml.mask_token_id", UINT32, ids["[MASK]"]),
    ]


def _to_gguf_token(token: str) -> str:
    if token.startswith("[") and token.endswith("]"):
        return token
    return token[2:] if token.startswith("##") else WORD_START + token


def _read_tensors(source: BinaryIO) -> tuple[list[Tensor], int]:
    """Return the tensors that llama.cpp uses, and where their data begins."""
    (length,) = struct.unpack("<Q", source.read(8))
    header: dict[str, Any] = json.loads(source.read(length))
    found = []
    for name, details in header.items():
        target = None if name == "__metadata__" else _to_gguf_name(name)
        if target is None:
            continue
        if details["dtype"] != "F32":
            raise ValueError(f"the tensor {name} has no 32-bit numbers")
        found.append(Tensor(target, tuple(details["shape"]), *details["data_offsets"]))
    if len(found) <= len(EMBEDDINGS):
        raise ValueError("the folder has no BERT encoder")
    return found, 8 + length


def _to_gguf_name(name: str) -> str | None:
    """Return a tensor's name in GGUF, or None for one that llama.cpp does not use."""
    name = name.removeprefix("bert.")
    if name in EMBEDDINGS:
        return EMBEDDINGS[name]
    if not name.startswith("encoder.layer."):
        return None
    number, _, rest = name.removeprefix("encoder.layer.").partition(".")
    part, _, suffix = rest.rpartition(".")
    return f"blk.{number}.{PARTS[part]}.{suffix}"


def _tensor_infos(tensors: list[Tensor]) -> Iterator[bytes]:
    """Yield the description of each tensor, and at last what aligns the data behind them."""
    offset = 0
    for tensor in tensors:
        sizes = struct.pack(f"<I{len(tensor.shape)}Q", len(tensor.shape), *reversed(tensor.shape))
        yield _text(tensor.name) + sizes + struct.pack("<IQ", tensor.kind, offset)
        offset += tensor.size + -tensor.size % ALIGNMENT


def _to_data(tensor: Tensor, data: bytes) -> bytes:
    if tensor.kind == F32:
        return data
    count = len(data) // 4
    return struct.pack(f"<{count}e", *struct.unpack(f"<{count}f", data))


def _pad(file: BinaryIO) -> None:
    file.write(bytes(-file.tell() % ALIGNMENT))


def _entry(key: str, kind: int, value: Any) -> bytes:
    return _text(key) + struct.pack("<I", kind) + _value(kind, value)


def _entry_of_list(key: str, kind: int, values: list[Any]) -> bytes:
    encoded = b"".join(_value(kind, value) for value in values)
    return _text(key) + struct.pack("<IIQ", ARRAY, kind, len(values)) + encoded


def _value(kind: int, value: Any) -> bytes:
    if kind == STRING:
        return _text(value)
    return struct.pack({UINT32: "<I", INT32: "<i", FLOAT32: "<f", BOOL: "<?"}[kind], value)


def _text(value: str) -> bytes:
    encoded = value.encode()
    return struct.pack("<Q", len(encoded)) + encoded
