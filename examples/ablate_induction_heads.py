"""Does a model that repeats what it read need its induction heads? Zero them, and see what it costs.

    python examples/ablate_induction_heads.py demo

The model reads random tokens twice over. Only the second time can it know what comes next: by looking at what followed
the same token before. The heads that do so are named by their share of attention on induction keys, zeroed by a hook of
TransformerLens, and compared with random heads of the same layers. The heads are named on other sequences than those on
which the loss is measured. What follows ± is a standard error over sequences.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int

import tl_attnstats as ta

Head = tuple[int, int]  # layer, head


class Rise(NamedTuple):
    """What zeroing some heads does to the loss of each sequence, in nats a token, in the two halves."""

    heads: list[Head]
    loss: Float[np.ndarray, "2 sequence"]
    more: Float[np.ndarray, "2 sequence"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Name the heads, zero them, and print a table in Markdown."""
    parser = argparse.ArgumentParser(description="What zeroing induction heads does to the loss on repeated tokens.")
    parser.add_argument("model", help="hub name, local transformers directory, .gguf file, or 'demo'")
    parser.add_argument("--sequences", type=int, default=20, help="so many to name heads, and as many for the loss")
    parser.add_argument("--length", type=int, default=50, help="tokens before the repetition")
    parser.add_argument("--heads", type=int, default=3, help="how many induction heads to zero")
    parser.add_argument("--draws", type=int, default=10, help="how many times to draw heads to compare with")
    parser.add_argument("--seed", type=int, default=0, help="of sequences and draws")
    args = parser.parse_args(arguments)

    model = ta.load_model(args.model)
    stats = ta.collect(
        model, ta.Corpus.repeated_tokens(model, args.sequences, args.length, args.seed), ["behaviour", "null_share"]
    )
    corpus = ta.Corpus.repeated_tokens(model, args.sequences, args.length, args.seed + 1)
    ids = torch.tensor([sentence.ids for sentence in corpus])
    strongest = induction_heads(stats, args.heads)
    others = list(controls(stats, strongest, args.draws, args.seed))
    alone = [[head] for head in strongest]
    clean, rises = measure(model, ids, [strongest, *alone, *others])

    baseline = float(stats["behaviour_baseline"].sel(kind="induction"))
    print(f"{stats.provenance['model']}: attention on induction keys, even attention has {baseline:.3f}\n")
    print("| head | induction | bounds, all heads at once | null share |\n| --- | --- | --- | --- |")
    for row in stats.top_heads("behaviour", n=args.heads + 5, kind="induction").itertuples():
        bounds = f"{row.low:.2f} to {row.high:.2f}"
        print(f"| {row.head} | {row.behaviour:.3f} ± {row.se:.3f} | {bounds} | {row.null_share:.2f} |")
    titles = ("zeroed", "mean induction", "loss, first half", "loss, second half", "rise, first half")
    print(f"\n| {' | '.join([*titles, 'rise, second half'])} |\n|{' --- |' * 6}")
    print(f"| none | – | {clean[0].mean():.2f} | {clean[1].mean():.2f} | – | – |")
    for kind, rise in zip(["strongest", *["alone"] * len(alone), *["random"] * len(others)], rises, strict=True):
        score = np.mean([float(stats["behaviour"].sel(layer=x, head=y, kind="induction")) for x, y in rise.heads])
        named = ", ".join(f"L{layer}H{head}" for layer, head in rise.heads)
        losses = [f"{half.mean():.2f}" for half in rise.loss]
        print(f"| {kind}: {named} | {score:.2f} | {' | '.join([*losses, *map(plus_minus, rise.more)])} |")
    print(f"\nA guess at random costs ln {len(model.tokenizer):,} = {np.log(len(model.tokenizer)):.2f} nats a token.")


def induction_heads(stats: ta.AttentionStats, n: int) -> list[Head]:
    """The heads with the largest share of attention on induction keys; none that looks at null tokens alone."""
    top = stats.top_heads("behaviour", n=n, max_null=0.9, kind="induction")
    return [stats.find_head(head) for head in top["head"]]


def controls(stats: ta.AttentionStats, heads: Sequence[Head], draws: int, seed: int) -> Iterator[list[Head]]:
    """Random other heads, as many of each layer as `heads` has."""
    rng = np.random.default_rng(seed)
    layers = sorted({layer for layer, _ in heads})
    others = {layer: [h for h in stats["head"].values.tolist() if (layer, h) not in heads] for layer in layers}
    wanted = {layer: sum(layer == its for its, _ in heads) for layer in layers}
    for layer in layers:
        if len(others[layer]) < wanted[layer]:
            raise SystemExit(f"layer {layer} has too few other heads to compare with: use a smaller --heads")
    for _ in range(draws):
        chosen = {layer: sorted(rng.choice(others[layer], wanted[layer], replace=False).tolist()) for layer in layers}
        yield [(layer, head) for layer in layers for head in chosen[layer]]


def measure(
    model: Any, ids: Int[torch.Tensor, "sequence token"], sets: Sequence[Sequence[Head]]
) -> tuple[Float[np.ndarray, "2 sequence"], list[Rise]]:
    """The loss in the two halves, and what it becomes when each set of heads is zeroed."""
    clean = loss(model, ids, [])
    zeroed = [loss(model, ids, heads) for heads in sets]
    return clean, [Rise(list(heads), after, after - clean) for heads, after in zip(sets, zeroed, strict=True)]


def loss(
    model: Any, ids: Int[torch.Tensor, "sequence token"], zeroed: Sequence[Head]
) -> Float[np.ndarray, "2 sequence"]:
    """Mean loss of each sequence on its two halves, with the outputs of some heads set to zero.

    The first repeated token counts to the first half: what came before it does not announce it.
    """
    layers = sorted({layer for layer, _ in zeroed})
    hooks = [(f"blocks.{layer}.attn.hook_z", zeroing([h for x, h in zeroed if x == layer])) for layer in layers]
    with torch.inference_mode(), model.hooks(fwd_hooks=hooks):
        parts = [model(part, return_type="loss", loss_per_token=True) for part in ids.split(8)]
    by_token = torch.cat(parts).double().cpu()  # entry i is of token i + 1
    middle = ids.shape[1] // 2
    return np.stack([by_token[:, :middle].mean(1).numpy(), by_token[:, middle:].mean(1).numpy()])


def zeroing(heads: list[int]) -> Any:
    """A hook that sets the outputs of some heads to zero, before the output projection."""

    def hook(z: Float[torch.Tensor, "batch query head width"], hook: Any) -> torch.Tensor:
        kept = z.clone()
        kept[:, :, heads] = 0
        return kept

    return hook


def plus_minus(values: Float[np.ndarray, " sequence"]) -> str:
    """Mean and standard error, with the sign."""
    error = values.std(ddof=1) / np.sqrt(len(values))
    return f"{values.mean():+.2f} ± {error:.2f}".replace("-", "−")


if __name__ == "__main__":
    main()
