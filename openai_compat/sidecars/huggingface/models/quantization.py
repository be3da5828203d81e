"""Quantization of linear layers to int8, for a quarter of the weights' bytes and several times the speed.

Weights have one scale for each output and activations one for each token, which is computed at run time. The products
are summed in 32-bit integers, so that a row's result is the same to the last bit in every batch. Attention keeps that
with `row_attention.py`. The experts of a mixture of experts are no `nn.Linear`, and stay in float32.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import nn

from openai_compat.core.errors import ModelUnavailableError

MAX_INT8: Final = 127


class Int8Linear(nn.Module):
    """Linear layer with weights and inputs rounded to 8 bits."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach().float()
        scale = weight.abs().amax(1).clamp(min=torch.finfo(torch.float32).tiny) / MAX_INT8
        self.register_buffer("weight", (weight / scale[:, None]).round_().to(torch.int8))
        self.register_buffer("scale", scale)
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().float())

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        rows = inputs.reshape(-1, inputs.shape[-1])
        scale = rows.abs().amax(1, keepdim=True).clamp_(min=torch.finfo(torch.float32).tiny) / MAX_INT8
        # A transposed view instead of a transposed copy, because oneDNN reads it 3 to 14 times as fast.
        products = torch._int_mm((rows / scale).round_().to(torch.int8), self.weight.t())
        outputs = (products * scale).mul_(self.scale)
        if self.bias is not None:
            outputs.add_(self.bias)
        return outputs.view(*inputs.shape[:-1], -1)


def quantize_to_int8(model: Any) -> None:
    """Replace the linear layers of a float32 model on a CPU.

    Raises:
        ModelUnavailableError: the model is on another device, or has no linear layers except its output embeddings
            (GPT-2 has `Conv1D` instead).
    """
    if model.device.type != "cpu":
        raise ModelUnavailableError("quantize: int8 is for models on the CPU. Remove it from this model's entry.")
    outputs = model.get_output_embeddings()
    if not any(type(module) is nn.Linear and module is not outputs for module in model.modules()):
        raise ModelUnavailableError("quantize: int8 finds no linear layers in this model. Remove it from its entry.")
    _replace_linear_layers(model)


def _replace_linear_layers(module: nn.Module) -> None:
    for name, child in module.named_children():
        if type(child) is nn.Linear:
            setattr(module, name, Int8Linear(child))
        else:
            _replace_linear_layers(child)
