"""Every architecture against the plain loops, on patterns of transformers itself: the table of docs/models.md."""

from __future__ import annotations

import copy
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tl_attnstats as ta
from tests import architectures, tiny
from tests.architectures import ARCHITECTURES
from tests.attention import test_streams as streams
from tests.attention.test_streamed import assert_equal
from tests.reference import Reference, tokens_of
from tests.test_statistics import assert_same, assert_same_exemplars
from tl_attnstats.errors import AttnStatsError

PAGE = Path(__file__).parents[1] / "docs" / "models.md"
TABLE = re.compile(r"(?<=<!-- matrix -->\n).*(?=<!-- end of matrix -->)", re.DOTALL)
HEADER = ("Architecture", "transformers", "Boots", "Hooks", "Streamed", "Padded batch", "Statistics")
WRITES = "WRITE_MATRIX" in os.environ  # `make matrix`
SOURCES = ("hooks", "streamed")
ENCODER_DECODERS = {
    "T5ForConditionalGeneration": "T5",
    "BartForConditionalGeneration": "BART",
    "MarianMTModel": "Marian",
}


@pytest.fixture(scope="module")
def corpus() -> ta.Corpus:
    """Sentences of 1 to 26 tokens: most are longer than the windows."""
    return ta.Corpus(tiny.sentences(6, seed=5, most_words=14))


@pytest.fixture(scope="module")
def rows() -> dict[str, str]:
    """The lines of the table by architecture, as the tests find them."""
    return {}


def line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |\n"


def record(rows: dict[str, str], name: str, family: str, *cells: str) -> None:
    """Put what was found into the table, which has to be what the page says."""
    rows[name] = line(family, f"`{name}`", *cells)
    assert WRITES or rows[name] in PAGE.read_text(), "docs/models.md says otherwise; `make matrix` writes it"


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_statistics_of_an_architecture_equal_the_reference_or_are_refused(
    name: str, corpus: ta.Corpus, rows: dict[str, str], smollm2_tokenizer: Any, minilm_tokenizer: Any
) -> None:
    architecture = ARCHITECTURES[name]
    tokenizer = minilm_tokenizer if architecture.encoder else smollm2_tokenizer
    original = architectures.build(name, tokenizer)
    model, settings = copy.deepcopy(original), {"progress": False}  # booting changes a model in place
    if architecture.boots:
        model = architectures.boot(model, tokenizer)
    else:
        with pytest.raises(ValueError, match="Could not determine supported architecture"):
            architectures.boot(model, tokenizer)
        settings["tokenizer"] = tokenizer
    cells = {source: refusal(model, corpus, source, architecture.refused.get(source), settings) for source in SOURCES}
    able = [source for source in SOURCES if cells[source] == "yes"]
    if able:
        truth = reference(original, ta.describe(model, tokenizer=settings.get("tokenizer")), corpus)
        assert_peaked(truth)
        together, alone = (
            [ta.collect(model, corpus, source=source, batch_tokens=n, **settings) for source in able] for n in (1024, 1)
        )
        assert_same(together[0], truth)
        assert_same_exemplars(together[0], truth, exact=False)
        for stats in (*together, *alone):
            assert_equal(stats, together[0])
    family = f"{architecture.family} ({architecture.note})" if architecture.note else architecture.family
    equal = ("right", "equal") if able else ("–", "–")
    record(rows, name, family, "yes" if architecture.boots else "no", *cells.values(), *equal)


def refusal(model: Any, corpus: ta.Corpus, source: str, reason: str | None, settings: dict[str, Any]) -> str:
    """A cell of the table: "yes", or why not, after the message was seen to say so."""
    if reason is None:
        return "yes"
    with pytest.raises(AttnStatsError, match=re.escape(reason)) as caught:
        ta.collect(model, corpus, ["entropy"], source=source, **settings)
    assert "\n" not in str(caught.value)
    return f"refused: {reason}"


def reference(original: Any, info: Any, corpus: ta.Corpus) -> Reference:
    """The plain loops over what transformers' own eager attention gives for one sentence after the other."""
    data = []
    for tokens in map(info.framing.tokenize, corpus):
        with torch.no_grad():
            layers = original(torch.tensor([tokens.ids]), output_attentions=True).attentions
        pattern = torch.cat([attention for attention in layers if attention is not None]).double().numpy()
        data.append((pattern, tokens_of(tokens.sentence, tokens.offsets, tokens.special)))
    return Reference(data, causal=info.causal, null=info.null)


def assert_peaked(truth: Reference) -> None:
    """Half of all rows that have a choice, in every layer, have more than half of their attention in one place."""
    largest = np.concatenate([pattern[:, :, 4:].max(-1) for pattern, _ in truth.data], -1)
    assert (np.median(largest, (1, 2)) > 0.5).all()
    assert max(len(tokens) for _, tokens in truth.data) > 20


@pytest.mark.parametrize("name", ENCODER_DECODERS)
def test_streams_of_an_encoder_decoder_equal_the_reference(
    name: str, corpus: ta.Corpus, rows: dict[str, str], minilm_path: Path
) -> None:
    made = streams.make(name, minilm_path)
    data = [streams.read_alone(made, sentence) for sentence in corpus]
    for stream, causal, null in (
        ("encoder", False, "special"),
        ("decoder", True, "first"),
        ("cross", False, "special"),
    ):
        settings: dict[str, Any] = {"stream": stream, "progress": False}
        together, alone = (
            [ta.collect(made.bridge, corpus, source=source, batch_tokens=n, **settings) for source in SOURCES]
            for n in (1024, 1)
        )
        if stream == "cross":
            cross = [(read.patterns[stream], read.decoder, read.encoder) for read in data]
            streams.assert_same_cross(together[0], streams.CrossReference(cross, null))
        else:
            truth = Reference(
                [(read.patterns[stream], getattr(read, stream)) for read in data], causal=causal, null=null
            )
            assert_same(together[0], truth)
            assert_same_exemplars(together[0], truth, exact=False)
        for stats in (*together, *alone):
            assert_equal(stats, together[0])
    family = f"{ENCODER_DECODERS[name]} (encoder, decoder and cross attention)"
    record(rows, name, family, "yes", "yes", "yes", "right", "equal")


def test_the_page_has_the_table(rows: dict[str, str]) -> None:
    """All of it: what no test wrote is not in it."""
    text = PAGE.read_text()
    if WRITES:
        text = TABLE.sub(lambda _: line(*HEADER) + line(*["---"] * len(HEADER)) + "".join(rows.values()), text)
        PAGE.write_text(text)
    table = TABLE.search(text)
    assert table is not None
    assert re.findall(r"`(\w+)`", table[0]) == [*ARCHITECTURES, *ENCODER_DECODERS]
