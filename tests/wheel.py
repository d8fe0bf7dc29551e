"""What the wheel does in an empty environment, without extras: `make test-wheel` runs this there."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

import tl_attnstats as ta

SAMPLE = Path(__file__).parent / "data" / "sample.conllu"
EXTRAS = ("bertviz", "circuitsvis", "gguf", "ray", "pytest", "hypothesis", "playwright")


def save_tiny_model(directory: Path, words: list[str]) -> None:
    """A decoder with random weights whose tokens are words."""
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys(["<s>", "?", *words]))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="?", bos_token="<s>", pad_token="<s>"
    ).save_pretrained(directory)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=256,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(directory)


def main() -> None:
    """Collect, save, draw, report and compare, in Python and by the command."""
    assert "site-packages" in ta.__file__, f"{ta.__file__} is not the installed wheel"
    here = [extra for extra in EXTRAS if importlib.util.find_spec(extra)]
    assert not here, f"the environment has {here}"
    corpus = ta.Corpus.from_conllu(SAMPLE)[:20]
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        save_tiny_model(directory / "model", " ".join(s.text for s in corpus).split())
        corpus.to_file(directory / "corpus.parquet")
        stats = ta.collect(ta.load_model(str(directory / "model")), corpus, progress=False)
        assert stats["distance"].shape == (2, 2)
        command = str(Path(sys.executable).with_name("attnstats"))
        out = str(directory / "out")
        for arguments in (
            ["--help"],
            ["run", str(directory / "model"), "--corpus", str(directory / "corpus.parquet"), "--out", out],
            ["show", out],
            ["report", out],
            ["compare", out, f"again={out}", "--out", str(directory / "comparison")],
        ):
            subprocess.run([command, *arguments], check=True, cwd=directory, stdout=subprocess.DEVNULL)
        again = ta.load(directory / "out" / "stats.nc")
        assert abs(again["distance"] - stats["distance"]).max() < 1e-5
    print("the wheel works alone: 1 passed, 0 failed")


if __name__ == "__main__":
    main()
