"""Reader of the metadata at the beginning of a GGUF file."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

MAGIC: Final = b"GGUF"
STRING: Final = 8
ARRAY: Final = 9
FORMATS: Final = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""Types of numbers, as `struct` names them."""
MAX_KEYS: Final = 65_536
MAX_STRING: Final = 16 * 1024 * 1024
LISTED: Final = 4096
"""Arrays of more values are skipped. They are vocabularies."""
BYTES_OF_A_NUMBER: Final = 2
"""Keys and values are kept as 16-bit numbers."""


@dataclass(frozen=True)
class GGUFHeader:
    """The metadata of a GGUF file, without its vocabulary."""

    values: dict[str, Any]

    @property
    def context_length(self) -> int | None:
        """The number of tokens that the model was trained for."""
        length: int | None = self._of_architecture("context_length")
        return length

    @property
    def embedding_length(self) -> int:
        """The number of dimensions of the model's vectors."""
        return int(self._of_architecture("embedding_length") or 0)

    @property
    def is_embedding_model(self) -> bool:
        """Return True if the file says how to make one vector of an input."""
        return self._of_architecture("pooling_type") is not None

    @property
    def chat_template(self) -> str:
        """The chat template, or an empty text."""
        template = self.values.get("tokenizer.chat_template")
        return template if isinstance(template, str) else ""

    def bytes_per_token(self) -> int:
        """Return the memory of a token's keys and values in all layers."""
        layers = self._of_architecture("block_count") or 0
        heads = self._of_architecture("attention.head_count") or 1
        kept = self._of_architecture("attention.head_count_kv") or heads
        width = self.embedding_length // (max(heads) if isinstance(heads, list) else heads)
        key = self._of_architecture("attention.key_length") or width
        value = self._of_architecture("attention.value_length") or width
        total = sum(kept) if isinstance(kept, list) else layers * kept
        return int(total * (key + value) * BYTES_OF_A_NUMBER)

    def _of_architecture(self, key: str) -> Any:
        return self.values.get(f"{self.values.get('general.architecture')}.{key}")


def read_header(path: Path) -> GGUFHeader:
    """Read the metadata of a file.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not a GGUF file, or it is damaged.
    """
    with path.open("rb") as file:
        if file.read(4) != MAGIC:
            raise ValueError(f"{path.name} is not a GGUF file")
        try:
            _version, _tensors, keys = _unpack(file, "IQQ")
            if keys > MAX_KEYS:
                raise ValueError("the file has too many keys")
            return GGUFHeader(dict(_read_entry(file) for _ in range(keys)))
        except (struct.error, KeyError, ValueError, OverflowError, RecursionError) as error:
            raise ValueError(f"{path.name} is damaged") from error


def _read_entry(file: BinaryIO) -> tuple[str, Any]:
    key = _read_string(file)
    (kind,) = _unpack(file, "I")
    return key, _read_value(file, kind)


def _read_value(file: BinaryIO, kind: int) -> Any:
    if kind == STRING:
        return _read_string(file)
    if kind == ARRAY:
        return _read_array(file)
    return _unpack(file, FORMATS[kind])[0]


def _read_array(file: BinaryIO) -> list[Any] | None:
    """Return the values of an array, or None for a long one, which is skipped."""
    kind, length = _unpack(file, "IQ")
    if length <= LISTED:
        return [_read_value(file, kind) for _ in range(length)]
    if kind == STRING:
        for _ in range(length):
            _read_string(file)
    else:
        file.seek(length * struct.calcsize(f"<{FORMATS[kind]}"), 1)
    return None


def _read_string(file: BinaryIO) -> str:
    (length,) = _unpack(file, "Q")
    if length > MAX_STRING:
        raise ValueError("a text of the file is too long")
    return file.read(length).decode()


def _unpack(file: BinaryIO, layout: str) -> tuple[Any, ...]:
    return struct.unpack(f"<{layout}", file.read(struct.calcsize(f"<{layout}")))
