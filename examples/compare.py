"""Two models side by side: which claims of Vig & Belinkov (2019) hold for each?

python examples/compare.py gpt2 EleutherAI/pythia-160m --text texts.txt --out out/comparison
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import tl_attnstats as ta


def main(arguments: Sequence[str] | None = None) -> None:
    """Collect, compare, write the page, and print the claims."""
    parser = argparse.ArgumentParser(description="Models side by side.")
    parser.add_argument("models", nargs="+", help="two or more hub names, local directories or .gguf files, or 'demo'")
    parser.add_argument("--text", type=Path, required=True, help="plain text, a text a line")
    parser.add_argument("--out", type=Path, required=True, help="directory for the page and its figures")
    args = parser.parse_args(arguments)

    corpus = ta.Corpus.from_text_file(args.text)  # all models read the same sentences
    comparison = ta.compare({name: ta.collect(ta.load_model(name), corpus) for name in args.models})
    ta.report.write_comparison(comparison, args.out)
    print(comparison.claims_table().pivot(index="statement", columns="model", values="verdict").to_string())
    for note in comparison.notes:
        print(note)


if __name__ == "__main__":
    main()
