"""Attention that computes each row of a batch by itself, so that the other rows do not change its result.

A batch pads its shorter rows, and sums over padded columns differ in their last bits from those of a row alone. With
int8, such a bit can round an activation to its neighbour, and then changes scores as much as quantization itself.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME: Final = "row_by_row"
"""Name of the attention in transformers' registry."""


def use_row_attention(model: Any) -> None:
    """Make the model compute attention row by row, if it uses PyTorch's `scaled_dot_product_attention`."""
    if model.config._attn_implementation == "sdpa":
        model.set_attn_implementation(NAME)


def attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Return what transformers' `sdpa` does, [rows, queries, heads, size of a head], and no weights.

    A model with a position bias, or with a mask that is additive or differs between heads, is computed as a batch.
    """
    mask = attention_mask
    is_plain = options.get("position_bias") is None and (mask is None or _is_padding_mask(mask, query))
    if is_plain and query.shape[2] == 1:
        return _attend_one_query(query, key, value, mask, options.get("scaling")), None
    if mask is None or not is_plain:
        # Without a mask no row is padded, and PyTorch computes each by itself.
        attended, _ = sdpa_attention_forward(module, query, key, value, mask, **options)
        return attended, None
    attended = query.new_zeros(query.shape[0], query.shape[2], query.shape[1], value.shape[3])
    for row, (first_query, first_column, row_mask) in enumerate(_without_padding(mask)):
        one = slice(row, row + 1)
        columns = key[one, :, first_column:], value[one, :, first_column:]
        attended[one, first_query:], _ = sdpa_attention_forward(
            module, query[one, :, first_query:], *columns, row_mask, **options
        )
    return attended, None


def _is_padding_mask(mask: torch.Tensor, query: torch.Tensor) -> bool:
    """Return True if the mask has booleans that all heads of a row share, as transformers makes it for `sdpa`."""
    return mask.dtype is torch.bool and mask.shape[:3] == (query.shape[0], 1, query.shape[2])


def _attend_one_query(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, scale: float | None
) -> torch.Tensor:
    """Return the attention of one query for each row.

    A row that sees every column from its first one on needs no mask.
    """
    if mask is None:
        attended = scaled_dot_product_attention(query, key, value, scale=scale, enable_gqa=True)
        return attended.transpose(1, 2).contiguous()
    columns = mask.shape[3]
    visible = mask[:, 0, 0].int()
    first_columns = visible.argmax(1).tolist()
    counts = visible.sum(1).tolist()
    rows = [
        scaled_dot_product_attention(
            query[row : row + 1],
            key[row : row + 1, :, first_column:],
            value[row : row + 1, :, first_column:],
            None if first_column + count == columns else mask[row : row + 1, :, :, first_column:],
            scale=scale,
            enable_gqa=True,
        )
        for row, (first_column, count) in enumerate(zip(first_columns, counts, strict=True))
    ]
    return torch.cat(rows).transpose(1, 2).contiguous()


def _without_padding(masks: torch.Tensor) -> list[tuple[int, int, torch.Tensor | None]]:
    """Return for each row its first query, its first column and the mask of what follows.

    The mask is None for a complete causal prompt, as `sdpa` has it for one that is alone.
    """
    visible = masks[:, 0]
    _, queries, columns = visible.shape
    first_columns = visible.any(1).int().argmax(1).tolist()
    # A query that is not padding sees its own column.
    lengths = visible.diagonal(columns - queries, 1, 2).sum(1).tolist()
    seen = visible.sum((1, 2)).tolist()
    rows = []
    for row, (first_column, length) in enumerate(zip(first_columns, lengths, strict=True)):
        is_causal = length == columns - first_column and seen[row] == length * (length + 1) // 2
        first_query = queries - length
        mask = None if is_causal else masks[row : row + 1, :, first_query:, first_column:]
        rows.append((first_query, first_column, mask))
    return rows


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
