"""Every architecture against the plain loops on transformers' own patterns, as docs/models.md says."""

from __future__ import annotations

import copy
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
import transformers
from transformer_lens.factories.architecture_adapter_factory import SUPPORTED_ARCHITECTURES

import tl_attnstats as ta
from tests import architectures, tiny
from tests.architectures import ARCHITECTURES, page
from tests.asserting import assert_equal, assert_peaked, assert_same, assert_same_cross, assert_same_exemplars
from tests.reference import Reference, Tokens, tokens_of
from tests.reference_cross import CrossReference
from tl_attnstats.collectors import DEFAULT_METRICS
from tl_attnstats.errors import AttnStatsError
from tl_attnstats.models.describe import ModelInfo

PAGE = Path(__file__).parents[1] / "docs" / "models.md"
WRITES = "WRITE_MATRIX" in os.environ  # `make matrix`
TABLE = re.compile(r"(?<=<!-- matrix -->\n).*(?=<!-- end of matrix -->)", re.DOTALL)
STEPPED = {"sinks", "pos_to_without_sinks", "dep_to_without_sinks", "relation_accuracy"}
"""Statistics that jump at a threshold or at a maximum.

Attention of these models is so peaked that rows are nearly one-hot. A key may then get exactly 3 of 10 rows, which is
the threshold of sinks, or two words exactly the same attention, and rounding decides. Other tests compare these
statistics of a given pattern; this module tests the pattern, for which the other statistics suffice.
"""
REGISTERED = sorted({*SUPPORTED_ARCHITECTURES, *ARCHITECTURES})
TRIED = [name for name in REGISTERED if name not in ARCHITECTURES or not ARCHITECTURES[name].untestable]


@pytest.fixture(scope="module")
def corpus() -> ta.Corpus:
    """Sentences of 1 to 26 tokens, most of them longer than the windows."""
    return ta.Corpus(tiny.sentences(6, seed=5, most_words=14))


@pytest.fixture(scope="module")
def readers(smollm2_tokenizer: Any, minilm_tokenizer: Any, minilm_path: Path) -> dict[str, Any]:
    """Tokenizers by kind of model. That of a "pair" (encoder–decoder) adds special tokens at both ends, like BART's."""
    pair = transformers.AutoTokenizer.from_pretrained(minilm_path)
    pair.backend_tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 101), ("[SEP]", 102)]
    )
    return {"decoder": smollm2_tokenizer, "encoder": minilm_tokenizer, "pair": pair}


def test_every_adapter_has_an_entry() -> None:
    untested = sorted(set(SUPPORTED_ARCHITECTURES) - set(ARCHITECTURES))
    assert not untested, (
        f"untested adapters of TransformerLens: {', '.join(untested)}; see tests/architectures/table.py"
    )


def test_the_page_says_what_the_entries_say() -> None:
    """The tests below compare the entries with what they find."""
    text = PAGE.read_text()
    wanted = page.render(ARCHITECTURES, SUPPORTED_ARCHITECTURES)
    if WRITES:
        text = TABLE.sub(lambda _: wanted, text)
        PAGE.write_text(text)
    table = TABLE.search(text)
    assert table is not None
    assert table[0] == wanted, "docs/models.md says otherwise; `make matrix` writes it"


def test_an_architecture_that_is_said_to_have_no_class_has_none() -> None:
    assert [name for name, entry in ARCHITECTURES.items() if entry.untestable and hasattr(transformers, name)] == []


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in ARCHITECTURES and ARCHITECTURES[name].quick else pytest.mark.slow)
        for name in TRIED
    ],
)
@pytest.mark.usefixtures("no_timm")
def test_statistics_of_an_architecture_equal_the_reference_or_are_refused(
    name: str, corpus: ta.Corpus, readers: dict[str, Any]
) -> None:
    if name not in ARCHITECTURES:
        pytest.fail(f"untested: {name} has no entry in tests/architectures/table.py")
    entry = ARCHITECTURES[name]
    tokenizer = readers[entry.reads]
    original = architectures.build(name, tokenizer)
    of_bridge = ("hooks", "streamed")
    if entry.boots:
        with pytest.raises((AttributeError, NotImplementedError, ValueError), match=re.escape(entry.boots)):
            architectures.boot(copy.deepcopy(original), tokenizer)
    else:
        bridge = architectures.boot(copy.deepcopy(original), tokenizer)  # booting changes a model in place
        check(name, bridge, original, of_bridge, corpus, {})
    if entry.boots or all(way in entry.refused for way in of_bridge):
        check(name, original, original, ("plain",), corpus, {"tokenizer": tokenizer})


def check(
    name: str, model: Any, original: Any, ways: tuple[str, ...], corpus: ta.Corpus, settings: dict[str, Any]
) -> None:
    """Every stream, read in every way, is right, or refused with the error of the entry."""
    entry = ARCHITECTURES[name]
    streams: tuple[Any, ...] = ("self",)
    if not all(way in entry.refused for way in ways):
        streams = ta.streams(model)
    for stream in streams:
        given = {
            **settings,
            "layers": entry.layers,
            "progress": False,
            **({"stream": stream} if stream != "self" else {}),
        }
        able = []
        for way in ways:
            source = "auto" if way == "plain" else way
            reason = entry.refused.get(way) or entry.refused.get(f"{stream}.{way}")
            if reason is None:
                able.append(source)
                continue
            errors = (AttnStatsError, RuntimeError) if entry.fault else AttnStatsError
            with pytest.raises(errors, match=re.escape(reason)) as caught:
                ta.collect(model, corpus, ["entropy"], source=source, **given)
            assert "\n" not in str(caught.value)
        if able:
            metrics = None  # none of STEPPED is defined for cross-attention
            if stream != "cross":
                metrics = [metric for metric in DEFAULT_METRICS if metric not in STEPPED]
            together, alone = (
                [ta.collect(model, corpus, metrics, source=source, batch_tokens=n, **given) for source in able]
                for n in (1024, 1)
            )
            info = ta.describe(model, **{key: value for key, value in given.items() if key != "progress"})
            compare(together[0], original, info, corpus, entry.peak)
            for stats in (*together, *alone):
                assert_equal(stats, together[0])


def compare(stats: ta.AttentionStats, original: Any, info: ModelInfo, corpus: ta.Corpus, peak: float) -> None:
    """Compare the statistics of a stream with the plain loops over transformers' own eager attention."""
    read = [read_alone(original, info, sentence) for sentence in corpus]
    assert_peaked([pattern for pattern, _, _ in read], peak)
    if info.stream == "cross":
        assert_same_cross(stats, CrossReference(read, info.null))
        return
    truth = Reference([(pattern, queries) for pattern, queries, _ in read], causal=info.causal, null=info.null)
    assert_same(stats, truth, binned=["variability"])  # a few sentences do not average out its binning error
    assert_same_exemplars(stats, truth, exact=False)
    for place, layer in enumerate(info.layers):
        reach = max(reach_of(pattern[place]) for pattern, _, _ in read)
        if layer in info.windows and info.causal:
            assert reach == info.windows[layer], f"layer {layer} looks back on {reach} tokens"


def read_alone(original: Any, info: ModelInfo, sentence: ta.Sentence) -> tuple[np.ndarray, Tokens, Tokens]:
    """The pattern `[layer, head, query, key]` of one sentence without padding, and its queries and keys."""
    keys = queries = info.framing.tokenize(sentence)
    given = {"input_ids": torch.tensor([keys.ids])}
    if info.decoder_framing is not None:
        queries = info.framing.reframe(keys, info.decoder_framing)
        given["decoder_input_ids"] = torch.tensor([queries.ids])
    with torch.no_grad():
        out = original(**given, output_attentions=True)
    name = {"self": "attentions", "cross": "cross_attentions"}.get(info.stream, f"{info.stream}_attentions")
    layers = [pattern for pattern in out[name] if pattern is not None]
    if len(layers) > len(info.layers):  # only some layers were chosen
        layers = [layers[layer] for layer in info.layers]
    sides = {"encoder": (keys, keys), "decoder": (queries, queries)}.get(info.stream, (queries, keys))
    said = [tokens_of(side.sentence, list(side.spans), list(side.special)) for side in sides]
    return torch.cat(layers).double().numpy(), said[0], said[1]


def reach_of(pattern: np.ndarray) -> int:
    """The largest number of tokens back that a query attends to, itself included; `[head, query, key]`."""
    query, key = np.nonzero(pattern.max(0) > 0)
    return int((query - key).max()) + 1
