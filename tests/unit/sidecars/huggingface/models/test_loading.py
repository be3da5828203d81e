"""Models that cannot be loaded, and why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.contracts.backend_contract import collect, text_of
from tests.support.tiny_models import PLAIN_TEMPLATE, byte_tokenizer, save_random_model, save_reciting_model
from tests.support.tools import require_extra

pytestmark = require_extra("local")

from openai_compat.backends.huggingface.model_options import LocalModel  # noqa: E402 - torch may not be installed
from openai_compat.core.errors import InvalidRequestError, ModelUnavailableError  # noqa: E402
from openai_compat.core.types import CallContext, ChatRequest, CompletionRequest  # noqa: E402
from openai_compat.sidecars.huggingface.models.loading import estimate_bytes, load_model  # noqa: E402

STATELESS = """\
import torch
from transformers import PretrainedConfig, PreTrainedModel


class Config(PretrainedConfig):
    model_type = "stateless"


class Model(PreTrainedModel):
    config_class = Config

    def __init__(self, config):
        super().__init__(config)
        self.layer = torch.nn.Linear(4, 4)
        self.post_init()

    def forward(self, input_ids):
        return self.layer(input_ids)
"""


def test_code_of_a_model_that_keeps_no_state_is_refused(tmp_path: Path) -> None:
    """The first `GPT3-dev` models have such code, and no generation settings."""
    save_random_model(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"model_type": "stateless", "auto_map": {"AutoConfig": "m.Config", "AutoModelForCausalLM": "m.Model"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "m.py").write_text(STATELESS)
    entry = LocalModel(name="m", hf_repo=str(tmp_path), device="cpu", trust_remote_code=True)
    with pytest.raises(ModelUnavailableError, match="their state is not keys and values"):
        load_model(entry, str)


def test_the_error_of_a_failed_load_names_the_cause(tmp_path: Path) -> None:
    def reason(**options: Any) -> str:
        with pytest.raises(ModelUnavailableError) as refusal:
            load_model(LocalModel(name="m", device="cpu", **options), str)
        assert str(tmp_path) not in refusal.value.message
        return refusal.value.message

    assert "not on this machine" in reason(hf_repo="missing/model")
    assert "has no config.json" in reason(hf_repo=str(tmp_path))
    assert "x.gguf of the model 'm' is missing" in reason(hf_repo=str(tmp_path), gguf_file="x.gguf")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "no-such-thing"}))
    assert "this server's version of transformers does not support" in reason(hf_repo=str(tmp_path))
    assert estimate_bytes(LocalModel(name="m", hf_repo=str(tmp_path))) is None
    save_random_model(tmp_path)
    assert (estimate_bytes(LocalModel(name="m", hf_repo=str(tmp_path))) or 0) > 10_000


def save_gemma_3n(folder: Path) -> None:
    """Save a model whose last two layers use the keys and values of the first two."""
    from transformers import Gemma3nForCausalLM, Gemma3nTextConfig

    tokenizer = byte_tokenizer(None)
    config = Gemma3nTextConfig(
        vocab_size=len(tokenizer),
        vocab_size_per_layer_input=len(tokenizer),
        hidden_size=32,
        hidden_size_per_layer_input=8,
        intermediate_size=64,
        num_hidden_layers=4,
        num_kv_shared_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        layer_types=["sliding_attention", "full_attention"] * 2,
        activation_sparsity_pattern=[0.0] * 4,
        laurel_rank=4,
        max_position_embeddings=256,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
    )
    Gemma3nForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def test_a_model_whose_layers_share_keys_and_values_answers(tmp_path: Path) -> None:
    save_gemma_3n(tmp_path)
    model: Any = load_model(LocalModel(name="m", hf_repo=str(tmp_path), device="cpu"), str)
    try:
        request = CompletionRequest("m", ["abc"], {"n": 2, "seed": 1, "max_tokens": 40})
        usage = [delta.usage for delta in collect(model.complete(request, CallContext("t"))) if delta.usage]
        assert usage[-1].completion_tokens == 80
    finally:
        model.close()


def test_a_tokenizer_may_have_more_tokens_than_its_model(tmp_path: Path) -> None:
    """Gemma 3's has the placeholder of images, which its smallest model cannot read."""
    save_reciting_model(tmp_path)
    tokenizer = byte_tokenizer(PLAIN_TEMPLATE)
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    tokenizer.save_pretrained(tmp_path)
    model: Any = load_model(LocalModel(name="m", hf_repo=str(tmp_path), device="cpu"), str)

    def chat(text: str, **parameters: Any) -> str:
        request = ChatRequest("m", [{"role": "user", "content": text}], {"temperature": 0, **parameters})
        return text_of(collect(model.chat(request, CallContext("t"))), 0)

    try:
        assert json.loads(chat("Hi", response_format={"type": "json_object"})) == {}
        with pytest.raises(InvalidRequestError, match="is not a token") as caught:
            chat("an <image>")
        assert caught.value.param == "messages"
        with pytest.raises(InvalidRequestError, match="is not a token"):
            collect(model.complete(CompletionRequest("m", ["a", "an <image>"], {}), CallContext("t")))
        with pytest.raises(InvalidRequestError, match=r"'9{20}' is not a token"):
            chat("Hi", logit_bias={"9" * 5000: 1})
    finally:
        model.close()
