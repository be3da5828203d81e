"""A row's scores with int8, which must not depend on the other rows of its batch."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.tools import require_extra

pytestmark = require_extra("local")

import torch  # noqa: E402 - it may not be installed
import transformers  # noqa: E402
from transformers.integrations.sdpa_attention import sdpa_attention_forward  # noqa: E402

from openai_compat.core.errors import ModelUnavailableError  # noqa: E402
from openai_compat.sidecars.huggingface.models.forward import ForwardPass  # noqa: E402
from openai_compat.sidecars.huggingface.models.quantization import quantize_to_int8  # noqa: E402
from openai_compat.sidecars.huggingface.models.row_attention import attend, use_row_attention  # noqa: E402

PROMPTS = [[5, 6, 7], list(range(20, 60)), [9], [5, 6, 7], list(range(100, 117))]
MIXED = ["sliding_attention", "full_attention", "sliding_attention"]


def make_model(name: str, options: dict[str, Any]) -> Any:
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4}
    torch.manual_seed(3)
    config = getattr(transformers, name)(vocab_size=300, initializer_range=0.5, **sizes, **options)
    return transformers.AutoModelForCausalLM.from_config(config).eval()


def generate(forward: ForwardPass, prompts: list[list[int]], steps: int = 12) -> torch.Tensor:
    """Return the scores after the prompts and after each of `steps` more tokens, [steps + 1, rows, vocabulary]."""
    with torch.inference_mode():
        cache = forward.new_cache()
        cache.start(len(prompts))
        scores = [forward.extend(cache, prompts)[:, 0]]
        scores += [forward.extend(cache, [[30 + step]] * len(prompts))[:, 0] for step in range(steps)]
    return torch.stack(scores)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("LlamaConfig", {"num_key_value_heads": 2}),
        ("MistralConfig", {"num_key_value_heads": 2, "sliding_window": 6}),
        ("Gemma3TextConfig", {"num_key_value_heads": 1, "head_dim": 16, "sliding_window": 8, "layer_types": MIXED}),
        ("GPTNeoXConfig", {}),
    ],
)
def test_other_rows_do_not_change_a_bit(name: str, options: dict[str, Any]) -> None:
    model = make_model(name, options)
    quantize_to_int8(model)
    use_row_attention(model)
    forward = ForwardPass(model)
    together = generate(forward, PROMPTS)
    for row, prompt in enumerate(PROMPTS):
        assert torch.equal(together[:, row], generate(forward, [prompt])[:, 0])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("LlamaConfig", {"num_key_value_heads": 2}),
        ("MistralConfig", {"num_key_value_heads": 2, "sliding_window": 6}),
        # Its mask is additive and differs between heads.
        ("DogeConfig", {"num_key_value_heads": 2}),
    ],
)
def test_scores_are_those_of_the_models_own_attention(name: str, options: dict[str, Any]) -> None:
    model = make_model(name, options)
    expected = generate(ForwardPass(model), PROMPTS)
    use_row_attention(model)
    assert model.config._attn_implementation == "row_by_row"
    assert torch.allclose(generate(ForwardPass(model), PROMPTS), expected, atol=1e-3)


def test_a_model_with_an_attention_of_its_own_keeps_it() -> None:
    model = make_model("BloomConfig", {"n_layer": 2, "n_head": 4})
    use_row_attention(model)
    assert model.config._attn_implementation == "eager"


@pytest.mark.parametrize(
    "mask",
    [
        torch.tensor([[1, 0, 1, 1], [0, 1, 1, 0]]).bool()[:, None, None],
        torch.tensor([[0.0, -1e9, 0.0, 0.5], [-1e9, 0.0, 0.0, 0.0]])[:, None, None],
        torch.tensor([[0, 1, 1, 1], [1, 0, 1, 1]]).bool()[None, :, None],
    ],
    ids=["hole", "additive", "heads"],
)
@pytest.mark.parametrize("queries", [1, 3])
def test_masks_of_a_models_own_code_are_used_as_they_are(mask: torch.Tensor, queries: int) -> None:
    module = torch.nn.Module()
    torch.manual_seed(3)
    query, key, value = torch.randn(2, 2, queries, 8), torch.randn(2, 2, 4, 8), torch.randn(2, 2, 4, 8)
    expected, _ = sdpa_attention_forward(module, query, key, value, mask, is_causal=False)
    attended, _ = attend(module, query, key, value, mask, is_causal=False)
    assert torch.allclose(attended, expected, atol=1e-5)


def test_a_model_whose_only_linear_layer_is_its_output_cannot_be_quantized() -> None:
    model = make_model("GPT2Config", {"n_head": 4})
    with pytest.raises(ModelUnavailableError, match="no linear layers"):
        quantize_to_int8(model)
    assert model.lm_head.weight is model.transformer.wte.weight
