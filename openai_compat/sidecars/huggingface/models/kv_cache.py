"""The keys and values of a running batch: one row a choice, all rows ending in the same column.

    row 0   . . . a b c d e        `.`: nothing of this row's, hidden by the attention mask
    row 1   a b c d e f g h
    row 2   . . . . . . a b
                            ^ the next token of every row goes here

So a step of the batch is one write into one column, whatever the lengths; each row's columns are contiguous, which is
all that masks, sliding windows included, ask for. A row joins by being copied to the right edge, and leaves by having
the last row moved into its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

SPARE_COLUMNS: Final = 256
"""Room for that many steps is made at a time: copying everything is then rare, and little memory lies idle."""
RESERVE: Final = 128 << 20
"""Bytes of the machine's memory that are left alone."""


class BatchKVCache:
    """Rows of keys and values for every layer of a model. `lengths` has the tokens of each row."""

    def __init__(self, layers: int) -> None:
        self.lengths: list[int] = []
        self._end = 0
        self._layers = [_Layer(self) for _ in range(layers)]
        self.for_model = Cache(layers=list(self._layers))
        """What the model takes as `past_key_values`."""

    @property
    def rows(self) -> int:
        return len(self.lengths)

    @property
    def width(self) -> int:
        """Columns that the longest row takes."""
        return max(self.lengths, default=0)

    @property
    def memory_bytes(self) -> int:
        return sum(layer.memory_bytes for layer in self._layers)

    def begin(self, rows: int) -> None:
        """Opens `rows` empty rows in an empty cache."""
        self.lengths = [0] * rows
        self._end = 0

    def make_room(self, columns: int) -> None:
        """Must be called before a forward pass that writes `columns`.

        Raises:
            MemoryError: the machine has no room for them.
        """
        if self._end and self._end + columns > self._layers[0].columns:
            self._rebuild(self.rows, self.width, columns)

    def advance(self, columns: Sequence[int]) -> None:
        """The forward pass went well: each row has gained that many columns, all of them end with the longest."""
        self._end += max(columns)
        self.lengths = [length + gained for length, gained in zip(self.lengths, columns, strict=True)]

    def join(self, other: BatchKVCache, copies: Sequence[int]) -> None:
        """Takes over the rows of `other`, each as often as `copies` says."""
        rows = self.rows + sum(copies)
        if other.width > self._end or rows > self._layers[0].rows:
            self._rebuild(rows, max(self.width, other.width), 1, like=other)
        sources = [row for row, times in enumerate(copies) for _ in range(times)]
        for mine, theirs in zip(self._layers, other._layers, strict=True):
            mine.copy_rows(theirs, sources, self.rows, self._end, other.width)
        self.lengths += [other.lengths[row] for row in sources]

    def remove(self, row: int) -> None:
        """Takes a row out; the last row takes its number."""
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

    def view(self) -> tuple[int, int]:
        """The first column in use, and the one after the last."""
        return self._end - self.width, self._end

    def _rebuild(self, rows: int, width: int, columns: int, like: BatchKVCache | None = None) -> None:
        """Moves everything into buffers of `rows` rows, with `width` columns in use and room for `columns` more."""
        capacity = width + columns + SPARE_COLUMNS
        models = self._layers if like is None else like._layers
        needed = sum(layer.bytes_for(max(rows, layer.rows), capacity) for layer in models)
        if needed > available_memory(models[0].device):
            raise MemoryError(f"{needed} bytes for keys and values")
        pairs = list(zip(self._layers, models, strict=True))
        # All or nothing: where memory runs out on the way, the rows that were there go on as they were.
        buffers = [mine.rebuilt(model, max(rows, mine.rows), capacity, self.view(), width) for mine, model in pairs]
        for layer, (keys, values) in zip(self._layers, buffers, strict=True):
            layer.hold(keys, values)
        self._end = width


class _Layer(CacheLayerMixin):  # type: ignore[misc]
    """One layer's buffers, [rows, heads, columns, size of a head] each; the first write shows the sizes."""

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
        # Zeros: what the mask hides is multiplied by 0, and memory as it is found may hold NaN, which stays NaN.
        self.keys = key_states.new_zeros(*key_states.shape[:2], columns, key_states.shape[3])
        self.values = value_states.new_zeros(*value_states.shape[:2], columns, value_states.shape[3])
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Writes the new columns, and returns all that the rows may attend to."""
        if self.keys is None:
            self.lazy_initialization(key_states, value_states)
        begin, end = self._owner.view()
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

    def copy_rows(self, source: _Layer, rows: Sequence[int], at: int, end: int, width: int) -> None:
        """Copies the last `width` columns of the source's rows to the rows from `at` on, ending at `end`."""
        source_end = source._owner.view()[1]
        for mine, theirs in ((self.keys, source.keys), (self.values, source.values)):
            for place, row in enumerate(rows, at):
                mine[place, :, end - width : end] = theirs[row, :, source_end - width : source_end]

    def move_row(self, source: int, target: int, begin: int, end: int) -> None:
        for tensor in (self.keys, self.values):
            tensor[target, :, begin:end] = tensor[source, :, begin:end]

    def rebuilt(
        self, like: _Layer, rows: int, columns: int, used: tuple[int, int], width: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """New buffers, shaped as `like`'s; the columns `used` end at `width` there."""
        begin, end = used
        new = []
        for mine, theirs in ((self.keys, like.keys), (self.values, like.values)):
            buffer = theirs.new_zeros(rows, theirs.shape[1], columns, theirs.shape[3])
            if mine is not None:
                buffer[: mine.shape[0], :, width - (end - begin) : width] = mine[:, :, begin:end]
            new.append(buffer)
        return new[0], new[1]

    def hold(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        self.keys, self.values = keys, values
        self.is_initialized = True

    def free(self) -> None:
        self.keys = self.values = None
        self.is_initialized = False


def available_memory(device: torch.device) -> float:
    """Bytes that may still be taken; Linux gives more than there is, and kills whoever uses it."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return float("inf")
    kilobytes = next((int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), None)
    return float("inf") if kilobytes is None else kilobytes * 1024.0 - RESERVE
