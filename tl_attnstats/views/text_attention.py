"""The attention of every head on one input, which the views draw."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tl_attnstats.attention.kernels.torch_blocks import reductions_of
from tl_attnstats.attention.scope import Scope
from tl_attnstats.attention.sources.hooks import check_block, check_shape
from tl_attnstats.corpus.batches import Batch, TokenizedSentence
from tl_attnstats.corpus.sentence import Sentence
from tl_attnstats.errors import CorpusError, HookError, MissingExtraError, ModelError
from tl_attnstats.models.describe import ModelInfo, check_hooked, describe, streams
from tl_attnstats.models.hooked import run
from tl_attnstats.models.options import MAX_TOKENS
from tl_attnstats.views import neurons as vectors


@dataclass(frozen=True)
class TextAttention:
    """The attention of one input. `attention_of` and `attention_from_cache` create it.

    `tokens` are pieces of the original text, including spaces. `null` marks the null tokens. `layers` are the model's
    numbers of the layers in `pattern`. `neurons` holds the query and key vectors, if requested.
    """

    tokens: tuple[str, ...]
    pattern: Float[np.ndarray, "layer head query key"]
    null: Bool[np.ndarray, " token"]
    layers: tuple[int, ...]
    neurons: vectors.Neurons | None = None

    def circuitsvis(self, layer: int) -> Any:
        """Show the heads of a layer as an interactive CircuitsVis figure for notebooks; its `str()` is HTML.

        When displayed, the figure loads scripts from the network.

        Raises:
            MissingExtraError: CircuitsVis is not installed.
            ModelError: the layer is not here.
        """
        if layer not in self.layers:
            raise ModelError(f"layer={layer!r}: expected one of {', '.join(map(str, self.layers))}")
        show = _optional("circuitsvis", "circuitsvis.attention").attention_patterns
        return show(tokens=list(self.tokens), attention=self.pattern[self.layers.index(layer)])

    def bertviz(self, kind: str = "head") -> Any:
        """Show all layers in an interactive BertViz view ("head" or "model") for notebooks, as an IPython `HTML`.

        When displayed, the view loads scripts from the network.

        Raises:
            MissingExtraError: BertViz is not installed.
            ModelError: `kind` is neither.
        """
        if kind not in ("head", "model"):
            raise ModelError(f"kind={kind!r}: expected head or model")
        show = getattr(_optional("bertviz", "bertviz"), f"{kind}_view")
        shown = {layer: torch.from_numpy(self.pattern[row])[None] for row, layer in enumerate(self.layers)}
        # BertViz numbers layers from 0, so fill in the missing layers; they are not shown.
        every = [shown.get(layer, shown[self.layers[0]]) for layer in range(max(self.layers) + 1)]
        return show(every, list(self.tokens), include_layers=list(self.layers), html_action="return")


def attention_of(
    model: Any,
    text: str,
    *,
    layers: Sequence[int] | None = None,
    prepend_bos: bool | None = None,
    null: str = "auto",
    neurons: bool = False,
    max_tokens: int = MAX_TOKENS,
) -> TextAttention:
    """Run a text through a model and keep its attention. The model is left unchanged.

    Args:
        model: a `TransformerBridge`.
        text: the text.
        layers: the layers to keep; None for all.
        prepend_bos: whether to start with BOS; None follows the model's `to_tokens`.
        null: rule for the null tokens; "auto" is the first position in causal models, special tokens in encoders.
        neurons: whether to keep query and key vectors too, for the neuron view.
        max_tokens: refuse longer texts, because many tokens make figures illegible. Special tokens count.

    Raises:
        CorpusError: the text is empty or has too many tokens.
        ModelError: the model or a layer cannot be used.
        HookError: the hooks do not give attention, or vectors that reproduce it.
    """
    _check_one_stream(model)
    info = describe(model, prepend_bos=prepend_bos, null=null, layers=layers)
    item = replace(info.framing, max_tokens=None).tokenize(Sentence(text, (), "text"))
    _check_length(item, max_tokens, info.framing.max_tokens)
    batch = Batch([item], device=info.device)
    cache: dict[str, Tensor] = {}

    names = [name for at in info.hook_of_layer.values() for name in vectors.hook_names(model, at)] if neurons else []
    with model.hooks(fwd_hooks=[(name, _keep_as(cache, name)) for name in names]):
        run(model, info, batch, lambda layer, pattern: _keep_as(cache, info.hook_of_layer[layer])(pattern, None))
    return _read(cache, batch, info, neurons)


def attention_from_cache(
    model: Any,
    cache: Mapping[str, Tensor],
    input_ids: Int[Tensor, "1 token"] | Int[Tensor, " token"],
    *,
    layers: Sequence[int] | None = None,
    null: str = "auto",
) -> TextAttention:
    """Read the attention of one input from a cache returned by `model.run_with_cache(input_ids)`.

    Args:
        model: the model.
        cache: the cache, with or without its batch dimension. Query and key vectors are kept too, if it has them.
        input_ids: the tokens.
        layers: the layers to keep; None for all layers whose pattern is in the cache.
        null: rule for the null tokens, see `attention_of`.

    Raises:
        CorpusError: there is more than one input.
        HookError: the cache lacks a pattern, or its shape does not match the tokens.
    """
    _check_one_stream(model)
    info = describe(model, null=null, layers=layers)
    hooks = info.hook_of_layer if layers else {n: at for n, at in info.hook_of_layer.items() if at in cache}
    missing = [name for name in hooks.values() if name not in cache]
    if missing or not hooks:
        raise HookError(f"cache: has no {(missing or ['blocks.*.attn.hook_pattern'])[0]}")
    info = replace(info, hook_of_layer=hooks)
    ids = input_ids[None] if input_ids.ndim == 1 else input_ids
    if ids.ndim != 2 or len(ids) != 1 or not ids.numel():
        raise CorpusError(f"input_ids: got shape {list(input_ids.shape)}, expected the tokens of one input")
    tokenizer = info.framing.tokenizer
    pieces = [tokenizer.decode([token]) for token in ids[0].tolist()]
    ends = np.cumsum([len(piece) for piece in pieces]).tolist()
    special = [token in tokenizer.all_special_ids for token in ids[0].tolist()]
    spans = list(zip([0, *ends], ends, strict=False))
    item = TokenizedSentence(Sentence("".join(pieces), (), "cache"), ids[0].tolist(), spans, [-1] * len(ends), special)
    wanted = [vectors.hook_names(model, at) for at in hooks.values()]
    neurons = all(any(name in cache for name in names) for names in wanted)
    return _read(cache, Batch([item], device=info.device), info, neurons)


def _check_one_stream(model: Any) -> None:
    """Raise `ModelError` for a transformers model, which has no hooks, and for encoder–decoders."""
    check_hooked(model)
    if streams(model) != ("self",):
        raise ModelError(
            f"model: views of one input support decoders and encoders, not encoder–decoders "
            f"({type(model).__name__}); collect(model, corpus, stream=…) gives statistics of each stream"
        )


def _read(cache: Mapping[str, Tensor], batch: Batch, info: ModelInfo, neurons: bool) -> TextAttention:
    scope = Scope(batch, info.causal, info.null)
    patterns = []
    for layer, name in info.hook_of_layer.items():
        tensor = cache[name].detach().to(info.device)
        tensor = tensor[None] if tensor.ndim == 3 else tensor  # a cache without its batch dimension
        check_shape(tensor, scope, info, layer)
        check_block(reductions_of(tensor, scope, layer), tensor, info)
        patterns.append(tensor[0].float().cpu().numpy())
    pattern = np.stack(patterns)
    if not np.isfinite(pattern).all():
        layer = info.layers[int(np.argwhere(~np.isfinite(pattern))[0, 0])]
        raise HookError(f"layer {layer}: NaN or infinite attention")
    item = batch.items[0]
    special = info.framing.tokenizer.convert_ids_to_tokens(list(item.ids))
    spans = zip(item.spans, special, strict=True)
    tokens = tuple(item.sentence.text[start:end] if start < end else name for (start, end), name in spans)
    read = vectors.read(cache, info.hook_of_layer, pattern) if neurons else None
    return TextAttention(tokens, pattern, scope.null[0].cpu().numpy(), info.layers, read)


def _keep_as(cache: dict[str, Tensor], name: str) -> Callable[[Tensor, Any], None]:
    def keep(tensor: Tensor, hook: Any) -> None:
        cache[name] = tensor.detach().clone()  # later modules may write into the tensor

    return keep


def _check_length(item: TokenizedSentence, max_tokens: int, context: int | None) -> None:
    if all(item.special):
        raise CorpusError(f"text: got {item.sentence.text!r}, which has no tokens; expected some text")
    if len(item) > max_tokens:
        raise CorpusError(
            f"text: has {len(item)} tokens, expected at most {max_tokens}; shorten it, or pass a larger max_tokens "
            f"(--max-tokens) if the figure may be large"
        )
    if context is not None and len(item) > context:
        raise CorpusError(f"text: has {len(item)} tokens, but the model's context has room for {context}")


def _optional(extra: str, module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(f"{extra} cannot be imported ({error}); pip install 'tl-attnstats[{extra}]'") from None
