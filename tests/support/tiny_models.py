"""Tiny models for tests, made in a second. Some are random, and one recites a known text."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

SCRIPT = "abc\u00e9d\u6771e\U0001f3c3fgh."
"""Text of the reciting model, which follows each byte with the next one and ends after the last. No byte repeats."""
PREFERRED = '}"]0tfn{['
"""Characters that it prefers if it may not continue the text, because they end a JSON value soon."""
PLAIN_TEMPLATE = "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}a"
TOOL_TEMPLATE = (
    "{% if tools %}{% for tool in tools %}{{ tool | tojson }}{% endfor %} Answer <tool_call>...</tool_call>{% endif %}"
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}a"
)


def byte_tokenizer(template: str | None) -> Any:
    """Return a tokenizer with a token for each byte, those of `PREFERRED` first, and `</s>`. It adds no first token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet(), key=lambda letter: (letter not in PREFERRED, letter))
    letters.sort(key=lambda letter: PREFERRED.index(letter) if letter in PREFERRED else len(PREFERRED))
    inner = Tokenizer(models.BPE(vocab={letter: token for token, letter in enumerate(letters)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>")
    tokenizer.chat_template = template
    return tokenizer


def save_reciting_model(folder: Path, template: str | None = PLAIN_TEMPLATE, window: int = 256) -> Path:
    """Save a Llama whose only layer does nothing, so that the next token depends on the last one alone."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = byte_tokenizer(template)
    size = len(tokenizer)
    config = LlamaConfig(
        vocab_size=size,
        hidden_size=size + size % 2,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        max_position_embeddings=window,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(torch.eye(size, config.hidden_size))
        model.model.layers[0].self_attn.o_proj.weight.zero_()
        model.model.layers[0].mlp.down_proj.weight.zero_()
        scores = -torch.arange(size)[:, None] * torch.full((1, config.hidden_size), 1e-3)
        script = [*tokenizer(SCRIPT)["input_ids"], tokenizer.eos_token_id]
        for token, following in itertools.pairwise(script):
            scores[following, token] += 2
        model.lm_head.weight.copy_(scores)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_random_model(folder: Path, **config: Any) -> Path:
    """Save a Llama with random weights. Its text is noise that depends on all tokens before it."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = byte_tokenizer(None)
    torch.manual_seed(5)
    sizes = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "initializer_range": 0.5,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    LlamaForCausalLM(LlamaConfig(**{**sizes, **config})).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_encoder(folder: Path) -> Path:
    """Save a BERT with random weights as a sentence-transformers folder, with a context window of 16 tokens."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    letters = [chr(code) for code in range(32, 127)]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *letters, *(f"##{letter}" for letter in letters)]
    inner = Tokenizer(models.WordPiece({word: token for token, word in enumerate(vocabulary)}, unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer(lowercase=False)
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]")
    torch.manual_seed(5)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=24, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2
    )
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    modules = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in kinds.items()]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 16}))
    return folder
