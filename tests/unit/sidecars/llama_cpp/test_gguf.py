"""GGUF files, of which the header is read and which are made from small encoders."""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path
from typing import Any

import pytest

from openai_compat.backends.llama_cpp.model_options import LlamaCppModel
from openai_compat.core.errors import ModelUnavailableError
from openai_compat.sidecars.llama_cpp import server_process
from openai_compat.sidecars.llama_cpp.bert_gguf import PARTS, convert_bert
from openai_compat.sidecars.llama_cpp.gguf_header import GGUFHeader, read_header
from openai_compat.sidecars.llama_cpp.loader import LlamaCppLoader, window_of

CONFIG = {
    "max_position_embeddings": 8, "hidden_size": 4, "num_hidden_layers": 1, "intermediate_size": 8,
    "num_attention_heads": 2, "layer_norm_eps": 1e-12, "type_vocab_size": 2,
}  # fmt: skip
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "cat", "##s"]
LLAMA = {
    "general.architecture": "llama", "llama.context_length": 8192, "llama.block_count": 30,
    "llama.embedding_length": 576, "llama.attention.head_count": 9, "llama.attention.head_count_kv": 3,
}  # fmt: skip


def save_encoder(folder: Path, dtype: str = "F32") -> Path:
    """Save a BERT encoder of 1s, 2s and so on, one number for each tensor."""
    shapes = {
        "embeddings.word_embeddings.weight": [7, 4], "embeddings.position_embeddings.weight": [8, 4],
        "embeddings.token_type_embeddings.weight": [2, 4], "embeddings.LayerNorm.weight": [4],
        "embeddings.LayerNorm.bias": [4], "pooler.dense.weight": [4, 4],
    }  # fmt: skip
    shapes |= {f"encoder.layer.0.{part}.weight": [4] if "Norm" in part else [4, 4] for part in PARTS}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    for number, (name, shape) in enumerate(shapes.items(), 1):
        count = shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + 4 * count]}
        data += struct.pack(f"<{count}f", *[number] * count)
    encoded = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(encoded)) + encoded + data)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY))
    return folder


def loader(folder: Path) -> LlamaCppLoader:
    return LlamaCppLoader(lambda name: folder / "x.sock", lambda model: model.max_batch)


def test_an_encoder_becomes_a_gguf_file_with_its_metadata_and_weights(tmp_path: Path) -> None:
    target = tmp_path / "encoder.gguf"
    convert_bert(save_encoder(tmp_path), target)
    header = read_header(target)
    assert (header.context_length, header.embedding_length, header.is_embedding_model) == (8, 4, True)
    assert header.values["tokenizer.ggml.tokens"] == [*VOCABULARY[:5], "\u2581cat", "s"]
    assert header.values["tokenizer.ggml.cls_token_id"] == 2
    content = target.read_bytes()
    assert content.endswith(struct.pack("<4f", *[14] * 4))  # the norm at the end of the last layer
    assert struct.pack("<28e", *[1] * 28) in content  # a matrix of 16-bit numbers
    assert struct.pack("<32f", *[2] * 32) in content  # the positions have 32
    assert b"pooler" not in content


def test_weights_of_another_width_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no 32-bit numbers"):
        convert_bert(save_encoder(tmp_path, "BF16"), tmp_path / "encoder.gguf")
    assert not (tmp_path / "encoder.gguf").exists()


NO_KEY = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 0)
LONG_ARRAY = NO_KEY + struct.pack("<IIQ", 9, 4, 2**63)
NESTED_ARRAYS = NO_KEY + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 5000


@pytest.mark.parametrize("content", [b"", b"GGUF", b"PK\3\4" * 10, b"GGUF" + b"\xff" * 40, LONG_ARRAY, NESTED_ARRAYS])
def test_a_file_that_is_no_gguf_file_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "a.gguf"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.gguf is"):
        read_header(file)
    model = LlamaCppModel(name="broken", gguf_file=str(file))
    with pytest.raises(ModelUnavailableError, match=r"The model 'broken' could not be loaded: a\.gguf is"):
        loader(tmp_path).load(model, str)


def test_a_file_that_does_not_exist_is_named_without_its_folder(tmp_path: Path) -> None:
    model = LlamaCppModel(name="missing", gguf_file=str(tmp_path / "a.gguf"))
    with pytest.raises(ModelUnavailableError) as caught:
        loader(tmp_path).load(model, str)
    assert caught.value.message == "The file a.gguf of the model 'missing' does not exist."


@pytest.mark.parametrize("pooling", [None, "none"])
def test_an_embedding_model_without_pooling_is_refused(tmp_path: Path, pooling: str | None) -> None:
    """llama.cpp loads it and refuses every call."""
    file = tmp_path / "a.gguf"
    convert_bert(save_encoder(tmp_path), file)
    file.write_bytes(file.read_bytes().replace(b"bert.pooling_type", b"bert.pooling_kind"))
    model = LlamaCppModel(name="a", gguf_file=str(file), capabilities=("embeddings",), pooling=pooling)
    with pytest.raises(ModelUnavailableError, match="Set `pooling`"):
        loader(tmp_path).load(model, str)


def test_a_process_that_never_answers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model on a disk that hangs would block the loading of all others."""
    file = tmp_path / "a.gguf"
    convert_bert(save_encoder(tmp_path), file)
    monkeypatch.setattr(server_process, "COMMAND", (sys.executable, "-c", "import time; time.sleep(600)"))
    monkeypatch.setattr(server_process, "LOAD_TIMEOUT", 0.1)
    monkeypatch.setattr(server_process, "END_TIMEOUT", 0.1)
    with pytest.raises(ModelUnavailableError, match="could not load"):
        loader(tmp_path).load(LlamaCppModel(name="a", gguf_file=str(file)), str)


def test_every_file_of_a_model_counts_for_its_memory(tmp_path: Path) -> None:
    """The name has a space and brackets, which patterns of files know too."""
    source = tmp_path / "encoder.gguf"
    convert_bert(save_encoder(tmp_path), source)
    first, second = (tmp_path / f"my model [q4]-0000{number}-of-00002.gguf" for number in (1, 2))
    source.rename(first)
    alone = loader(tmp_path).estimate(LlamaCppModel(name="a", gguf_file=str(first)))
    assert alone is not None
    assert alone > first.stat().st_size
    second.write_bytes(b"x" * 1000)
    (tmp_path / "mm [1].gguf").write_bytes(b"x" * 500)
    whole = LlamaCppModel(name="a", gguf_file=str(first), mmproj_file=str(tmp_path / "mm [1].gguf"))
    assert loader(tmp_path).estimate(whole) == alone + 1500


@pytest.mark.parametrize(
    ("keys", "window"), [({}, 8192), ({"max_context_tokens": 2048}, 2048), ({"max_context_tokens": 65_536}, 8192)]
)
def test_a_window_is_no_larger_than_the_models_own(keys: dict[str, Any], window: int) -> None:
    assert window_of(LlamaCppModel(name="a", gguf_file="a", **keys), GGUFHeader(LLAMA)) == window


def test_a_large_window_has_to_be_asked_for() -> None:
    header = GGUFHeader({**LLAMA, "llama.context_length": 131_072})
    assert window_of(LlamaCppModel(name="a", gguf_file="a"), header) == 8192
    assert window_of(LlamaCppModel(name="a", gguf_file="a", max_context_tokens=100_000), header) == 100_000


def test_the_memory_of_a_token_counts_its_keys_and_values() -> None:
    assert GGUFHeader(LLAMA).bytes_per_token() == 30 * 3 * (64 + 64) * 2
    by_layer = {**LLAMA, "llama.attention.head_count_kv": [3, 1], "llama.attention.key_length": 32}
    assert GGUFHeader(by_layer).bytes_per_token() == 4 * (32 + 64) * 2
