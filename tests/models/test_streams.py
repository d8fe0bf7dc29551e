"""Encoder–decoders: each stream of attention against plain loops over what transformers itself computes."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import numpy as np
import pytest
import tokenizers
import torch
import transformers
import xarray as xr
from transformer_lens.model_bridge import TransformerBridge

import tl_attnstats as ta
from tests import tiny
from tests.asserting import assert_equal, assert_same, assert_same_cross, assert_same_exemplars
from tests.reference import Reference, Tokens, tokens_of
from tests.reference_cross import CrossReference
from tl_attnstats.collectors.base import REGISTRY
from tl_attnstats.errors import HookError, MetricError, ModelError, StatsError

STREAMS = ("encoder", "decoder", "cross")
# The tokens that training puts before the decoder's text, and those that the tokenizer puts around the encoder's.
CLS, SEP, PAD = 101, 102, 0
DECODER_PREFIX = {
    "T5ForConditionalGeneration": [PAD],
    "BartForConditionalGeneration": [SEP, CLS],
    "MarianMTModel": [PAD],
}
ENCODER_FRAME = {
    "T5ForConditionalGeneration": ([], [SEP]),
    "BartForConditionalGeneration": ([CLS], [SEP]),
    "MarianMTModel": ([], [SEP]),
}


class Made(NamedTuple):
    bridge: Any
    original: Any  # the transformers model, unchanged
    architecture: str


def tokenizer_of(path: Any, architecture: str) -> Any:
    """A fast tokenizer that frames a text as the architecture's own does."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    before = "[CLS] " if ENCODER_FRAME[architecture][0] else ""
    tokenizer.backend_tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{before}$A [SEP]", special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)]
    )
    return tokenizer


def make(architecture: str, path: Any) -> Made:
    tokenizer = tokenizer_of(path, architecture)
    original = tiny.encoder_decoder(architecture, tokenizer)
    to_bridge = copy.deepcopy(original)
    to_bridge.config.architectures = [architecture]
    bridge = TransformerBridge.boot_transformers(architecture, hf_model=to_bridge, tokenizer=tokenizer)
    return Made(bridge, original, architecture)


@pytest.fixture(scope="module", params=DECODER_PREFIX)
def made(request: Any, minilm_path: Any) -> Made:
    return make(request.param, minilm_path)


@pytest.fixture(scope="module")
def t5(minilm_path: Any) -> Made:
    return make("T5ForConditionalGeneration", minilm_path)


@pytest.fixture(scope="module")
def corpus() -> ta.Corpus:
    return ta.Corpus(tiny.sentences(8, seed=6, most_words=12))


@pytest.fixture(scope="module")
def data(made: Made, corpus: ta.Corpus) -> list[Read]:
    return [read_alone(made, sentence) for sentence in corpus]


class Read(NamedTuple):
    """One sentence as transformers reads it alone, without padding: patterns `[layer, head, query, key]` by stream."""

    patterns: dict[str, np.ndarray]
    encoder: Tokens
    decoder: Tokens


def read_alone(made: Made, sentence: ta.Sentence) -> Read:
    plain = made.bridge.tokenizer(sentence.text, add_special_tokens=False, return_offsets_mapping=True)

    def side(before: list[int], after: list[int]) -> tuple[torch.Tensor, Tokens]:
        ids = [*before, *plain.input_ids, *after]
        offsets = [(0, 0)] * len(before) + plain.offset_mapping + [(0, 0)] * len(after)
        special = [True] * len(before) + [False] * len(plain.input_ids) + [True] * len(after)
        return torch.tensor([ids]), tokens_of(sentence, offsets, special)

    encoder_ids, encoder = side(*ENCODER_FRAME[made.architecture])
    decoder_ids, decoder = side(DECODER_PREFIX[made.architecture], [])
    with torch.no_grad():
        out = made.original(input_ids=encoder_ids, decoder_input_ids=decoder_ids, output_attentions=True)
    given = {"encoder": out.encoder_attentions, "decoder": out.decoder_attentions, "cross": out.cross_attentions}
    patterns = {stream: torch.cat(list(layers)).double().numpy() for stream, layers in given.items()}
    return Read(patterns, encoder, decoder)


def test_self_attention_of_encoder_and_decoder_equals_the_reference(
    made: Made, corpus: ta.Corpus, data: list[Read]
) -> None:
    for stream, causal, null in (("encoder", False, "special"), ("decoder", True, "first")):
        pairs = [(r.patterns[stream], r.encoder if stream == "encoder" else r.decoder) for r in data]
        truth = Reference(pairs, causal=causal, null=null)
        assert 0.2 < np.mean(truth.entropy().value()) < 0.9 * np.log(15)  # neither one-hot nor uniform
        stats = ta.collect(made.bridge, corpus, stream=stream, batch_tokens=60, progress=False)
        assert stats.provenance["stream"] == stream
        assert stats.provenance["attention"] == ("causal" if causal else "bidirectional")
        assert stats.provenance["null"] == null
        assert_same(stats, truth)
        assert_same_exemplars(stats, truth)


@pytest.mark.parametrize("null", ["special", "first", "none"])
def test_cross_attention_equals_plain_loops(made: Made, corpus: ta.Corpus, data: list[Read], null: str) -> None:
    truth = CrossReference([(r.patterns["cross"], r.decoder, r.encoder) for r in data], null)
    stats = ta.collect(made.bridge, corpus, stream="cross", null=null, batch_tokens=60, progress=False)
    assert_same_cross(stats, truth)


@pytest.mark.parametrize("null", ["special", "none"])
def test_exemplars_of_cross_attention_have_a_token_from_each_side(
    made: Made, corpus: ta.Corpus, data: list[Read], null: str
) -> None:
    truth = CrossReference([(r.patterns["cross"], r.decoder, r.encoder) for r in data], null)
    stats = ta.collect(made.bridge, corpus, ["exemplars"], stream="cross", null=null, batch_tokens=60, progress=False)
    texts = {sentence.number: sentence.text for sentence in corpus}
    for layer in stats["layer"].values:
        for head in stats["head"].values:
            best = truth.exemplars(layer, head)
            found = stats.exemplars(f"L{layer}H{head}")
            np.testing.assert_allclose(found["weight"], [weight for weight, *_ in best], rtol=0, atol=1e-5)
            assert list(zip(found["sentence"], found["query"], found["key"], strict=True)) == [b[1:] for b in best]
            for row in found.itertuples():
                sides = [data[row.sentence].decoder, data[row.sentence].encoder]
                for tokens, place, text in zip(
                    sides, (row.query, row.key), (row.query_text, row.key_text), strict=True
                ):
                    assert (text == "") == tokens.special[place]
                    assert text in texts[row.sentence]


def test_the_decoder_reads_the_sentence_and_the_provenance_says_so(made: Made, corpus: ta.Corpus) -> None:
    provenance = {
        stream: ta.collect(made.bridge, corpus[:2], ["null_share"], stream=stream, progress=False).provenance
        for stream in STREAMS
    }
    pieces = made.bridge.tokenizer.convert_ids_to_tokens
    before, after = ENCODER_FRAME[made.architecture]
    encoder, decoder = [*pieces(before), "…", *pieces(after)], [*pieces(DECODER_PREFIX[made.architecture]), "…"]
    assert provenance["encoder"]["special_tokens"] == " ".join(encoder)
    assert "decoder_input" not in provenance["encoder"]
    for stream in ("decoder", "cross"):
        assert provenance[stream]["special_tokens"] == " ".join(decoder)
        assert provenance[stream]["decoder_input"] == "the sentence itself, as in training (teacher forcing)"
    assert provenance["cross"]["key_special_tokens"] == " ".join(encoder)


def test_statistics_undefined_for_cross_attention_are_left_out_or_refused(t5: Made, corpus: ta.Corpus) -> None:
    stats = ta.collect(t5.bridge, corpus[:2], stream="cross", progress=False)
    assert stats.provenance["left_out"].endswith(": not defined between tokens of two sequences")
    for name in ("distance", "variability", "dependency_alignment", "offset_profile", "baselines"):
        assert name in stats.provenance["left_out"]
        assert name not in stats.state
        with pytest.raises(MetricError, match=f"got {name}, undefined for cross-attention as set"):
            ta.collect(t5.bridge, corpus, ["entropy", name], stream="cross", progress=False)
    with pytest.raises(MetricError, match="got exemplars, undefined for cross-attention as set"):
        ta.collect(t5.bridge, corpus, [ta.Exemplars(5, exclude_self=True)], stream="cross", progress=False)
    assert "left_out" not in ta.collect(t5.bridge, corpus[:2], stream="decoder", progress=False).provenance


@pytest.mark.parametrize("reads", ["offset_mass", "column_distance", "pair_mass"])
def test_a_users_statistic_cannot_read_offsets_of_cross_attention(t5: Made, corpus: ta.Corpus, reads: str) -> None:
    class Offsets(ta.Distance):
        name = f"test_{reads}"
        within_sequence = False

    Offsets.reads = (reads,)
    Offsets.pairs = ta.DependencyAlignment.pairs if reads == "pair_mass" else {}
    try:
        with pytest.raises(MetricError, match=r"offsets or pairs, but query and key are in different"):
            ta.collect(t5.bridge, corpus, [Offsets], stream="cross", progress=False)
    finally:
        del REGISTRY[Offsets.name]


def test_collect_caches_and_hooks_agree(t5: Made, corpus: ta.Corpus) -> None:
    for stream in STREAMS:
        collected = ta.collect(t5.bridge, corpus, stream=stream, source="hooks", progress=False)
        cached, hooked = ta.Collectors(t5.bridge, stream=stream), ta.Collectors(t5.bridge, stream=stream)
        for batch in cached.batches(corpus):
            given = cached.arguments(batch)
            _, cache = t5.bridge.run_with_cache(batch.input_ids, **given, names_filter=cached.hook_names)
            cached.update(cache, batch)
        for batch in hooked.batches(corpus):
            t5.bridge.run_with_hooks(batch.input_ids, **hooked.arguments(batch), fwd_hooks=hooked.hooks(batch))
        xr.testing.assert_identical(collected.dataset, cached.stats().dataset)
        xr.testing.assert_identical(collected.dataset, hooked.stats().dataset)


def test_a_pass_stops_after_the_last_pattern_of_its_stream(t5: Made, corpus: ta.Corpus) -> None:
    reached: list[str] = []
    original = t5.bridge.original_model
    parts = {"decoder": original.decoder, "logits": original.lm_head}
    handles = [part.register_forward_pre_hook(lambda *_, n=name: reached.append(n)) for name, part in parts.items()]
    found = {}
    for stream in STREAMS:
        collectors = ta.Collectors(t5.bridge, stream=stream, source="hooks")
        batch = next(collectors.batches(corpus))
        collectors.run(batch)  # the first run includes trials, which are passes too
        reached.clear()
        collectors.run(batch)
        found[stream] = list(reached)
    for handle in handles:
        handle.remove()
    assert found == {"encoder": [], "decoder": ["decoder"], "cross": ["decoder"]}


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("most_rows", [5, 256])
def test_streamed_agrees_with_hooks(
    made: Made, corpus: ta.Corpus, stream: str, most_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tl_attnstats.attention.sources.streamed.MOST_ROWS", most_rows)
    streamed, hooked = (
        ta.collect(made.bridge, corpus, stream=stream, source=source, batch_tokens=60, progress=False)
        for source in ("auto", "hooks")
    )
    assert (streamed.provenance["source"], hooked.provenance["source"]) == ("streamed", "hooks")
    assert_equal(streamed, hooked)


def test_streamed_layers_are_those_asked_for(made: Made, corpus: ta.Corpus) -> None:
    whole, one = (
        ta.collect(made.bridge, corpus, stream="cross", source="streamed", layers=layers, progress=False)
        for layers in (None, [1])
    )
    assert one["layer"].values.tolist() == [1]
    np.testing.assert_allclose(one["entropy"].sel(layer=1), whole["entropy"].sel(layer=1), rtol=0, atol=1e-12)


def test_documents_in_windows_give_the_same_tokens_in_every_stream(t5: Made, monkeypatch: Any) -> None:
    monkeypatch.setattr(t5.bridge.cfg, "n_ctx", 9)
    corpus = ta.Corpus(tiny.sentences(4, seed=2, most_words=16), sequence_kind="document")
    collectors = ta.Collectors(t5.bridge, stream="cross")
    for batch in collectors.batches(corpus, stride=5):
        assert batch.decoder is not None
        for encoder, decoder in zip(batch.items, batch.decoder.items, strict=True):
            assert len(encoder) <= 9
            assert list(encoder.ids)[:-1] == list(decoder.ids)[1:]
            assert decoder.n_context == (encoder.n_context + 1 if encoder.n_context else 0)
        halves = batch.split(2) if len(batch) > 1 else [batch]
        assert [i.ids for half in halves for i in half.decoder.items] == [i.ids for i in batch.decoder.items]
        collectors.run(batch)
    assert collectors.stats().provenance["sequences"] > 4


def test_streams_are_not_mixed(t5: Made, corpus: ta.Corpus, tiny_decoder: Any) -> None:
    with pytest.raises(
        ModelError, match=r"is an encoder–decoder, .* choose one: stream='encoder' or 'decoder' or 'cross'"
    ):
        ta.collect(t5.bridge, corpus)
    with pytest.raises(ModelError, match="stream='both': expected one of self, encoder, decoder, cross"):
        ta.collect(t5.bridge, corpus, stream="both")
    with pytest.raises(ModelError, match="stream='cross': expected self for tiny-decoder"):
        ta.collect(tiny_decoder, corpus, stream="cross")
    encoder, decoder = (ta.collect(t5.bridge, corpus, ["entropy"], stream=s, progress=False) for s in STREAMS[:2])
    with pytest.raises(StatsError, match="merge: different stream: 'encoder' here, 'decoder' there"):
        encoder.merge(decoder)


def test_what_an_encoder_decoder_cannot_do_is_refused(t5: Made, corpus: ta.Corpus) -> None:
    with pytest.raises(ModelError, match=r"prepend_bos=True: .* always follows its tokenizer"):
        ta.collect(t5.bridge, corpus, stream="cross", prepend_bos=True, progress=False)
    with pytest.raises(
        ModelError, match=r"T5ForConditionalGeneration is an encoder–decoder of transformers, .* bridge it: "
    ):
        ta.collect(t5.original, corpus, tokenizer=t5.bridge.tokenizer)
    collectors = ta.Collectors(t5.bridge, stream="cross")
    batch = ta.Batch([collectors.info.framing.tokenize(sentence) for sentence in corpus[:2]])
    with pytest.raises(HookError, match=r"batch has no decoder input, which stream=.* collectors.batches"):
        collectors.run(batch)


def test_wrong_patterns_of_cross_attention_are_refused(minilm_path: Any, corpus: ta.Corpus) -> None:
    model = make("T5ForConditionalGeneration", minilm_path).bridge
    for spoil, message in (
        (lambda p: p * 0.5, "rows are not probabilities"),
        (lambda p: torch.full_like(p, 1 / p.shape[-1]), "is on padding, expected none"),
        (lambda p: p[..., :-1], r"the pattern has shape .*, expected .*, \[batch, head, query, key\]"),
    ):
        collectors = ta.Collectors(model, stream="cross")
        batch = next(collectors.batches(corpus))
        _, cache = model.run_with_cache(batch.input_ids, **collectors.arguments(batch))
        with pytest.raises(HookError, match=message):
            collectors.update({name: spoil(cache[name]) for name in collectors.hook_names}, batch)
