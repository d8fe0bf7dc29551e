"""Models of TransformerLens 3, which `make test-tl3` puts before the TransformerLens of the main suite."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
import transformers
from transformer_lens import HookedEncoder, HookedTransformer, HookedTransformerConfig


@pytest.fixture(scope="session")
def smollm2_tokenizer(smollm2_tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """TransformerLens 3 reloads a tokenizer by its name, which fails for one from a .gguf file."""
    path = tmp_path_factory.mktemp("tokenizer")
    smollm2_tokenizer.save_pretrained(path)
    return transformers.AutoTokenizer.from_pretrained(path)


@pytest.fixture
def hooked_transformer(smollm2_tokenizer: Any) -> HookedTransformer:
    return peaked(HookedTransformer(config(smollm2_tokenizer, model_name="tiny-decoder"), smollm2_tokenizer))


@pytest.fixture
def hooked_encoder(minilm_tokenizer: Any) -> HookedEncoder:
    settings = config(minilm_tokenizer, attention_dir="bidirectional", d_vocab_out=len(minilm_tokenizer))
    return peaked(HookedEncoder(settings, minilm_tokenizer))


def config(tokenizer: Any, **settings: Any) -> HookedTransformerConfig:
    sizes = {"n_layers": 3, "n_heads": 4, "d_model": 32, "d_head": 8, "d_mlp": 48, "n_ctx": 96}
    return HookedTransformerConfig(**sizes, d_vocab=len(tokenizer), act_fn="gelu", **settings)


def peaked(model: Any) -> Any:
    """Set large random weights. A HookedEncoder built from a configuration has uninitialised ones."""
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if not re.search(r"\bln", name):
            torch.nn.init.normal_(parameter, std=0.6)
    return model.eval()
