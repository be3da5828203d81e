"""Models that cannot be loaded, and why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.tiny_models import save_random_model
from tests.support.tools import require_extra

pytestmark = require_extra("local")

from openai_compat.backends.huggingface.model_options import LocalModel  # noqa: E402 - torch may not be installed
from openai_compat.core.errors import ModelUnavailableError  # noqa: E402
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
