"""Keys and values of a running batch. Each sequence has one row, and all rows end in the same column.

    row 0   . . . a b c d e        `.`: not used by this row, and hidden by the attention mask
    row 1   a b c d e f g h
    row 2   . . . . . . a b
                            ^ the next token of every row goes here

A step of the batch is one write into one column, also for rows of different lengths. Each row's columns are contiguous,
which is all that attention masks require, those of sliding windows included. A row is added by a copy to the right
edge. When a row is removed, the last row moves to its index.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

SPARE_COLUMNS: Final = 256
"""Columns that are allocated ahead, so that copying the cache is rare and little memory is unused."""
RESERVE: Final = 128 << 20
"""Bytes of the machine's memory that the cache does not use."""


class BatchKVCache:
    """Keys and values of all layers of a model. `lengths` has the number of tokens of each row."""

    def __init__(self, layers: int) -> None:
        self.lengths: list[int] = []
        self._end = 0
        self._layers = [_Layer(self) for _ in range(layers)]
        self.past_key_values = Cache(layers=list(self._layers))
        """The cache as the model takes it."""

    @property
    def rows(self) -> int:
        return len(self.lengths)

    @property
    def width(self) -> int:
        """The length of the longest row, in columns."""
        return max(self.lengths, default=0)

    @property
    def memory_bytes(self) -> int:
        return sum(layer.memory_bytes for layer in self._layers)

    def start(self, rows: int) -> None:
        """Open `rows` empty rows in an empty cache."""
        self.lengths = [0] * rows
        self._end = 0

    def reserve(self, columns: int) -> None:
        """Reserve `columns` for the next forward pass.

        Raises:
            MemoryError: the machine has not enough memory for them.
        """
        if self._end and self._end + columns > self._layers[0].columns:
            self._reallocate(self.rows, self.width, columns)

    def advance(self, columns: Sequence[int]) -> None:
        """Record the columns that each row has gained in a forward pass. All rows end with the longest one."""
        self._end += max(columns)
        self.lengths = [length + gained for length, gained in zip(self.lengths, columns, strict=True)]

    def append(self, other: BatchKVCache, copies: Sequence[int]) -> None:
        """Append the rows of `other`, each as many times as `copies` states."""
        rows = self.rows + sum(copies)
        if other.width > self._end or rows > self._layers[0].rows:
            self._reallocate(rows, max(self.width, other.width), 1, like=other)
        sources = [row for row, times in enumerate(copies) for _ in range(times)]
        for layer, other_layer in zip(self._layers, other._layers, strict=True):
            layer.copy_rows(other_layer, sources, self.rows, self._end, other.width)
        self.lengths += [other.lengths[row] for row in sources]

    def remove(self, row: int) -> None:
        """Remove a row. The last row takes its index."""
        last = self.rows - 1
        if row != last:
            for layer in self._layers:
                layer.move_row(last, row, self._end - self.lengths[last], self._end)
        self.lengths[row] = self.lengths[last]
        self.lengths.pop()
        if not self.lengths:
            self._end = 0
            for layer in self._layers:
                layer.free()

    def used_columns(self) -> tuple[int, int]:
        """Return the first column in use and the one after the last."""
        return self._end - self.width, self._end

    def _reallocate(self, rows: int, width: int, columns: int, like: BatchKVCache | None = None) -> None:
        """Move everything into buffers of `rows` rows, with `width` columns in use and `columns` more reserved."""
        total = width + columns + SPARE_COLUMNS
        models = self._layers if like is None else like._layers
        needed = sum(layer.bytes_for(max(rows, layer.rows), total) for layer in models)
        if needed > available_memory(models[0].device):
            raise MemoryError(f"{needed} bytes for keys and values")
        # All buffers are made before any is replaced. If memory runs out meanwhile, the cache stays as it was.
        buffers = [
            layer.reallocated(model, max(rows, layer.rows), total, self.used_columns(), width)
            for layer, model in zip(self._layers, models, strict=True)
        ]
        for layer, (keys, values) in zip(self._layers, buffers, strict=True):
            layer.set_buffers(keys, values)
        self._end = width


class _Layer(CacheLayerMixin):  # type: ignore[misc]
    """Buffers of one layer, [rows, heads, columns, size of a head] each. The first write determines the sizes."""

    is_sliding = False

    def __init__(self, owner: BatchKVCache) -> None:
        super().__init__()
        self._owner = owner

    @property
    def rows(self) -> int:
        return self.keys.shape[0] if self.keys is not None else 0

    @property
    def columns(self) -> int:
        return self.keys.shape[2] if self.keys is not None else 0

    @property
    def device(self) -> torch.device:
        return self.keys.device if self.keys is not None else torch.device("cpu")

    @property
    def memory_bytes(self) -> int:
        return self.bytes_for(self.rows, self.columns)

    def bytes_for(self, rows: int, columns: int) -> int:
        if self.keys is None:
            return 0
        sizes = (tensor.shape[1] * tensor.shape[3] * tensor.element_size() for tensor in (self.keys, self.values))
        return int(rows * columns * sum(sizes))

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        columns = key_states.shape[2] + SPARE_COLUMNS
        # Zeros, because hidden values are multiplied by 0, and 0 times the NaN of uninitialized memory is NaN.
        self.keys = key_states.new_zeros(*key_states.shape[:2], columns, key_states.shape[3])
        self.values = value_states.new_zeros(*value_states.shape[:2], columns, value_states.shape[3])
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the new columns and return all that the rows may attend to."""
        if self.keys is None:
            self.lazy_initialization(key_states, value_states)
        begin, end = self._owner.used_columns()
        rows, new_end = key_states.shape[0], end + key_states.shape[2]
        self.keys[:rows, :, end:new_end] = key_states
        self.values[:rows, :, end:new_end] = value_states
        return self.keys[:rows, :, begin:new_end], self.values[:rows, :, begin:new_end]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self._owner.width + query_length, 0

    def get_seq_length(self) -> int:
        return self._owner.width

    def get_max_length(self) -> int:
        return -1

    def copy_rows(self, source: _Layer, rows: Sequence[int], first: int, end: int, width: int) -> None:
        """Copy the last `width` columns of the source's `rows` to the rows from `first` on, up to the column `end`."""
        source_end = source._owner.used_columns()[1]
        for tensor, source_tensor in ((self.keys, source.keys), (self.values, source.values)):
            for target, row in enumerate(rows, first):
                tensor[target, :, end - width : end] = source_tensor[row, :, source_end - width : source_end]

    def move_row(self, source: int, target: int, begin: int, end: int) -> None:
        for tensor in (self.keys, self.values):
            tensor[target, :, begin:end] = tensor[source, :, begin:end]

    def reallocated(
        self, like: _Layer, rows: int, columns: int, used: tuple[int, int], width: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return new buffers in the shape of `like`, with a copy of the `used` columns that ends at `width`."""
        begin, end = used
        buffers = []
        for old, model in ((self.keys, like.keys), (self.values, like.values)):
            buffer = model.new_zeros(rows, model.shape[1], columns, model.shape[3])
            if old is not None:
                buffer[: old.shape[0], :, width - (end - begin) : width] = old[:, :, begin:end]
            buffers.append(buffer)
        return buffers[0], buffers[1]

    def set_buffers(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        self.keys, self.values = keys, values
        self.is_initialized = True

    def free(self) -> None:
        self.keys = self.values = None
        self.is_initialized = False


def available_memory(device: torch.device) -> float:
    """Return how many bytes are free. Linux grants more than exist, and kills a process that uses them."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return float("inf")
    kilobytes = next((int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), None)
    return float("inf") if kilobytes is None else kilobytes * 1024.0 - RESERVE
