"""The attention of every head on one input, which the views draw."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tl_attnstats.attention.kernels.torch_blocks import reductions_of
from tl_attnstats.attention.scope import scope_of
from tl_attnstats.attention.sources.hooks import check_block, check_shape
from tl_attnstats.collectors.sinks import sinks_of
from tl_attnstats.corpus.align import align
from tl_attnstats.corpus.batches import Batch, TokenizedSentence
from tl_attnstats.corpus.sentence import Sentence
from tl_attnstats.errors import CorpusError, HookError, MissingExtraError, ModelError, StatsError
from tl_attnstats.models.describe import ModelInfo, check_hooked, describe, streams
from tl_attnstats.models.fingerprint import fingerprint
from tl_attnstats.models.hooked import run
from tl_attnstats.models.options import MAX_TOKENS, Stream
from tl_attnstats.results.stats import AttentionStats
from tl_attnstats.views import neurons as vectors
from tl_attnstats.views import page
from tl_attnstats.views.texts import Text, input_of, words_of

FRAME_HEIGHT = 900


@dataclass(frozen=True)
class TextAttention:
    """The attention of one input. `attention_of` and `attention_from_cache` create it.

    `tokens` are pieces of the original text, including spaces. `null` marks the null tokens. `layers` are the model's
    numbers of the layers in `pattern`. `neurons` holds the query and key vectors, if they were kept; `why_no_neurons`
    says why not. `words` are the numbers of the words to which tokens belong (-1: to none), `parts` tells (0 or 1) the
    parts of a text of two parts; both are empty if unknown. `sinks` marks the keys that are sinks of a head, as `Sinks`
    defines them. In cross-attention `tokens` are the decoder's, and `keys`, `key_words` the encoder's, to which `null`
    belongs; `others` holds the encoder's and the decoder's own attention. `stats` are statistics of the same model.
    """

    tokens: tuple[str, ...]
    pattern: Float[np.ndarray, "layer head query key"]
    null: Bool[np.ndarray, " key"]
    layers: tuple[int, ...]
    neurons: vectors.Neurons | None = None
    why_no_neurons: str = ""
    words: tuple[int, ...] = ()
    parts: tuple[int, ...] = ()
    sinks: Bool[np.ndarray, "layer head key"] | None = None
    keys: tuple[str, ...] = ()
    key_words: tuple[int, ...] = ()
    model: str = ""
    stream: Stream = "self"
    others: tuple[TextAttention, ...] = ()
    stats: AttentionStats | None = None

    def show(
        self, *, layers: Sequence[int] | None = None, heads: Sequence[str] | None = None, height: int = FRAME_HEIGHT
    ) -> page.Frame:
        """The interactive page in a frame, which a notebook shows where this is the last value of a cell.

        Args:
            layers: the layers to show; None for all.
            heads: the heads to show ("L8H6"); None for all.
            height: of the frame, in pixels.

        Raises:
            FigureError: the page would be too large.
            MetricError: a head does not exist.
            ModelError: a layer is not here.
        """
        return page.Frame(page.render(self, layers=layers, heads=heads), height)

    def write(
        self, path: str | Path, *, layers: Sequence[int] | None = None, heads: Sequence[str] | None = None
    ) -> None:
        """Write the interactive page to an HTML file, which needs no network. Arguments and errors as in `show`."""
        page.write(self, path, layers=layers, heads=heads)

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
    text: Text,
    *,
    layers: Sequence[int] | None = None,
    prepend_bos: bool | None = None,
    null: str = "auto",
    neurons: bool | None = None,
    max_tokens: int = MAX_TOKENS,
    stats: AttentionStats | None = None,
) -> TextAttention:
    """Run a text through a model and keep its attention. The model is left unchanged.

    Args:
        model: a `TransformerBridge`.
        text: the text; a `Sentence` brings its own words. A pair of texts is a text of two parts: in a decoder the
            second follows the first as it is, in an encoder they are two sentences, and in an encoder–decoder the first
            is the encoder's and the second the decoder's, which otherwise reads the same text.
        layers: the layers to keep; None for all.
        prepend_bos: whether to start with BOS; None follows the model's `to_tokens`.
        null: rule for the null tokens; "auto" is the first position in causal models, special tokens in encoders.
        neurons: whether to keep query and key vectors too, for the neuron view; None keeps them if they reproduce the
            attention.
        max_tokens: refuse longer texts, because many tokens make figures illegible. Special tokens count.
        stats: statistics of this model, of which the page names each head and shows its numbers.

    Returns:
        The attention; of an encoder–decoder the cross-attention, with the encoder's and the decoder's in `others`.

    Raises:
        CorpusError: the text is empty or has too many tokens.
        ModelError: the model or a layer cannot be used.
        HookError: the hooks do not give attention, or vectors that reproduce it.
        StatsError: the statistics are of another model.
    """
    check_hooked(model)
    several = [name for name in streams(model) if name != "self"]
    options: dict[str, Any] = {"prepend_bos": prepend_bos, "null": null, "layers": layers}
    infos = [describe(model, stream=name, **options) for name in several] or [describe(model, **options)]
    if stats is not None:
        _check_same_model(stats, model, infos)
    found = [_attention(model, info, text, neurons, max_tokens) for info in infos]
    last = replace(found[-1], others=tuple(found[:-1]))
    return replace(last, stats=stats)


def _attention(model: Any, info: ModelInfo, text: Text, neurons: bool | None, max_tokens: int) -> TextAttention:
    batch, parts = input_of(info, text, max_tokens)
    cache: dict[str, Tensor] = {}
    names = [name for at in info.hook_of_layer.values() for name in vectors.hook_names(model, at)]
    names = [] if neurons is False else names
    with model.hooks(fwd_hooks=[(name, _keep_as(cache, name)) for name in names]):
        run(model, info, batch, lambda layer, pattern: _keep_as(cache, info.hook_of_layer[layer])(pattern, None))
    return replace(_read(cache, batch, info, neurons), parts=parts)


def _check_same_model(stats: AttentionStats, model: Any, infos: list[ModelInfo]) -> None:
    """Raise `StatsError` unless statistics are of this model, by the hash of its weights."""
    said = stats.provenance
    theirs, ours = said.get("model_fingerprint", ""), fingerprint(model)
    name, own = said["model"], infos[0].name
    if (theirs != ours) if theirs else (name != own):
        weights = f" (weights {theirs}, expected {ours})" if theirs else ""
        raise StatsError(
            f"stats: got statistics of {name}{weights}, but the text is read by {own}; "
            f"pass statistics of this model, or leave stats out"
        )
    known = [info.stream for info in infos]
    if (stream := said.get("stream", "self")) not in known:
        raise StatsError(f"stats: got the stream {stream!r}, expected {' or '.join(map(repr, known))}")


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
    text = "".join(pieces)
    words = words_of(text)
    item = TokenizedSentence(Sentence(text, words, "cache"), ids[0].tolist(), spans, align(words, spans), special)
    return _read(cache, Batch([item], device=info.device), info, None)


def _check_one_stream(model: Any) -> None:
    """Raise `ModelError` for a transformers model, which has no hooks, and for encoder–decoders."""
    check_hooked(model)
    if streams(model) != ("self",):
        raise ModelError(
            f"model: a cache of an encoder–decoder ({type(model).__name__}) is not supported; "
            f"attention_of(model, (text, decoder_text)) reads its three streams"
        )


def _read(cache: Mapping[str, Tensor], batch: Batch, info: ModelInfo, neurons: bool | None) -> TextAttention:
    scope = scope_of(info, batch)
    patterns, sinks = [], []
    for layer, name in info.hook_of_layer.items():
        tensor = cache[name].detach().to(info.device)
        tensor = tensor[None] if tensor.ndim == 3 else tensor  # a cache without its batch dimension
        check_shape(tensor, scope, info, layer)
        block = reductions_of(tensor, scope, layer)
        check_block(block, tensor, info)
        patterns.append(tensor[0].float().cpu().numpy())
        if not scope.crosses:
            sinks.append(sinks_of(block)[0].cpu().numpy())
    pattern = np.stack(patterns)
    if not np.isfinite(pattern).all():
        layer = info.layers[int(np.argwhere(~np.isfinite(pattern))[0, 0])]
        raise HookError(f"layer {layer}: NaN or infinite attention")
    read, why = _vectors(cache, info, pattern, neurons)
    tokens, words = _tokens(scope.batch.items[0], info)
    keys, key_words = _tokens(scope.keys.items[0], info) if scope.crosses else ((), ())
    return TextAttention(
        tokens,
        pattern,
        scope.null[0].cpu().numpy(),
        info.layers,
        neurons=read,
        why_no_neurons=why,
        words=words,
        sinks=np.stack(sinks) if sinks else None,
        keys=keys,
        key_words=key_words,
        model=info.name,
        stream=info.stream,
    )


def _tokens(item: TokenizedSentence, info: ModelInfo) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The text of each token, or the name of one that was added; and the number of its word."""
    named = info.framing.tokenizer.convert_ids_to_tokens(list(item.ids))
    spans = zip(item.spans, named, strict=True)
    tokens = tuple(item.sentence.text[start:end] if start < end else name for (start, end), name in spans)
    return tokens, tuple(-1 if added else word for word, added in zip(item.word_of_token, item.special, strict=True))


def _vectors(
    cache: Mapping[str, Tensor], info: ModelInfo, pattern: np.ndarray, wanted: bool | None
) -> tuple[vectors.Neurons | None, str]:
    """The query and key vectors, or why there are none. Raises `HookError` only if they were asked for."""
    if wanted is False:
        return None, ""
    try:
        return vectors.read(cache, info.hook_of_layer, pattern), ""
    except HookError as error:
        if wanted:
            raise
        return None, str(error)


def _keep_as(cache: dict[str, Tensor], name: str) -> Callable[[Tensor, Any], None]:
    def keep(tensor: Tensor, hook: Any) -> None:
        cache[name] = tensor.detach().clone()  # later modules may write into the tensor

    return keep


def _optional(extra: str, module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(f"{extra} cannot be imported ({error}); pip install 'tl-attnstats[{extra}]'") from None
