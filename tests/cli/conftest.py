from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

TEXT = (
    "The cat sat on the mat. It was seen by NATO, the North Atlantic Treaty Organization.\n\nDogs bark [bold]loudly.\n"
)


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: Any, smollm2_tokenizer: Any) -> Path:
    """A tiny decoder as `save_pretrained` writes it."""
    directory = tmp_path_factory.mktemp("model")
    config = transformers.LlamaConfig(
        vocab_size=len(smollm2_tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
    )
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(config).save_pretrained(directory)
    smollm2_tokenizer.save_pretrained(directory)
    return directory


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path
