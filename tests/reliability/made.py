"""Models and corpora as files, for runs in other processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
import transformers

import tl_attnstats as ta
from tests import tiny


def model(directory: Path, tokenizer: Any, n_positions: int = 96) -> Path:
    """A tiny decoder as `save_pretrained` writes it."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=n_positions,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def corpus(path: Path, n: int = 30) -> Path:
    ta.Corpus(tiny.sentences(n, seed=1)).to_file(path)
    return path


def attnstats(*arguments: Any, **environment: str | None) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, with some variables of the environment set, or unset (None)."""
    env = {**os.environ, **environment}
    command = [sys.executable, "-m", "tl_attnstats.cli", *map(str, arguments)]
    return subprocess.run(
        command, env={k: v for k, v in env.items() if v is not None}, capture_output=True, text=True, check=False
    )
