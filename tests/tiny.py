"""Tiny models with random weights and peaked attention, and random sentences."""

from __future__ import annotations

import random
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch
import transformers
from transformer_lens.model_bridge import TransformerBridge

from tl_attnstats import AttentionStats, Sentence, Word
from tl_attnstats.results.state import Reading

TAGS = ("NOUN", "VERB", "ADJ", "PUNCT", "X")
RELATIONS = ("nsubj", "obj", "nmod:poss", "nmod", "punct")
VOCABULARY = ("the", "cat", "sat", "on", "mats", "of", "Zürich", "日本", "unbelievable", "NATO", ",", ".", " 😀")


def _boot(model: Any, tokenizer: Any, name: str, scale: float = 6) -> TransformerBridge:
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if "norm" not in key.lower() and weight.ndim == 2:
                weight.mul_(scale)  # attention far from uniform, so that every mistake shows
    model.config.architectures = [type(model).__name__]
    return TransformerBridge.boot_transformers(name, hf_model=model.eval(), tokenizer=tokenizer)


def decoder(tokenizer: Any, seed: int = 0, n_layers: int = 3, n_heads: int = 4) -> TransformerBridge:
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=8 * n_heads,
        intermediate_size=48,
        num_hidden_layers=n_layers,
        num_attention_heads=n_heads,
        num_key_value_heads=2,
        max_position_embeddings=96,
        attn_implementation="eager",
    )
    return _boot(transformers.LlamaForCausalLM(config), tokenizer, "tiny-decoder")


def encoder(tokenizer: Any, seed: int = 0) -> TransformerBridge:
    torch.manual_seed(seed)
    config = transformers.BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=96,
        attn_implementation="eager",
    )
    return _boot(transformers.BertForMaskedLM(config), tokenizer, "tiny-encoder")


def sentences(n: int, seed: int = 0, most_words: int = 18) -> list[Sentence]:
    """Random words, tags and trees of mixed lengths; one sentence has a single word."""
    rng = random.Random(seed)
    made = []
    for number in range(n):
        text, words = "", []
        length = 1 if number == 1 else rng.randint(1, most_words)
        order = rng.sample(range(length), length)
        for index in range(length):
            text += rng.choice((" ", "  ", "")) if text else ""
            form = rng.choice(VOCABULARY).strip()
            above = order[: order.index(index)]  # heads come from earlier in a random order, which makes a tree
            head = rng.choice(above[-3:]) if above else None
            words.append(Word(len(text), len(text) + len(form), rng.choice(TAGS), head, rng.choice(RELATIONS)))
            text += form
        made.append(Sentence(text, tuple(words), f"random {number}", number))
    return made


def heads(n_words: int, rng: random.Random) -> list[int | None]:
    """The heads of words in random trees: None, or a word from earlier in a random order."""
    order = rng.sample(range(n_words), n_words)
    return [rng.choice([None, *order[: order.index(word)]]) for word in range(n_words)]


def patterns(n_layers: int, n_heads: int, n_tokens: int, causal: bool, seed: int) -> np.ndarray:
    """Random patterns `[layer, head, query, key]`, some nearly one-hot, some mostly on the first token."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(n_layers, n_heads, n_tokens, n_tokens)) * rng.choice(
        [0.5, 3, 12], size=(n_layers, n_heads, 1, 1)
    )
    scores[..., 0] += rng.choice([-2.0, 2.0, 5.0], size=(n_layers, n_heads, 1))
    if causal:
        scores = np.where(np.tri(n_tokens, dtype=bool), scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def encoder_decoder(architecture: str, tokenizer: Any, seed: int = 0) -> Any:
    """A transformers encoder–decoder with random weights. T5's decoder has fewer layers than its encoder."""
    torch.manual_seed(seed)
    size = {"vocab_size": len(tokenizer), "d_model": 32, "pad_token_id": 0, "attn_implementation": "eager"}
    if architecture == "T5ForConditionalGeneration":
        more = {"d_kv": 8, "d_ff": 48, "num_layers": 3, "num_decoder_layers": 2, "num_heads": 4}
        start = {"decoder_start_token_id": 0}
    else:
        sides = [
            f"{side}_{name}" for side in ("encoder", "decoder") for name in ("layers", "attention_heads", "ffn_dim")
        ]
        more = {**dict(zip(sides, (3, 4, 48) * 2, strict=True)), "max_position_embeddings": 96, "bos_token_id": 101}
        start = {"eos_token_id": 102, "decoder_start_token_id": 102 if architecture.startswith("Bart") else 0}
    model_class = getattr(transformers, architecture)
    model = model_class(model_class.config_class(**size, **more, **start)).eval()
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if key.endswith((".q.weight", ".k.weight", "q_proj.weight", "k_proj.weight")):
                weight.mul_(ENCODER_DECODERS[architecture])
    return model


# Factors for query and key weights that make attention neither uniform nor one-hot.
ENCODER_DECODERS = {"T5ForConditionalGeneration": 2, "BartForConditionalGeneration": 16, "MarianMTModel": 24}


def renamed(stats: AttentionStats, **provenance: Any) -> AttentionStats:
    """The same statistics with another provenance."""
    names = {field.name for field in fields(Reading)}
    reading = replace(stats.run.reading, **{key: value for key, value in provenance.items() if key in names})
    said = {key: value for key, value in provenance.items() if key not in names}
    return AttentionStats(replace(stats.run, reading=reading, said={**stats.run.said, **said}))
