"""Every error and warning has a page in docs/reference/errors, and its snippets raise what the page says they raise."""

from __future__ import annotations

import importlib
import pkgutil
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numba
import pytest

import tl_attnstats as ta
from tests import tiny
from tl_attnstats import cli

PAGES = Path(__file__).parents[1] / "docs" / "reference" / "errors"
BLOCK = re.compile(r"^```(python|text|console)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
# Caught by the package, which raises a `CorpusError` in its place.
NEVER_SEEN = {"OtherTextsError"}
SENTENCES = ["The dog barked at the cat.", "She saw the old house of Mary again."]


def classes() -> set[str]:
    """The names of all errors and warnings of the package that a user can meet."""
    for module in pkgutil.walk_packages(ta.__path__, "tl_attnstats."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    return {cls.__name__ for base in (ta.errors.AttnStatsError, ta.errors.AttnStatsWarning) for cls in family(base)}


def family(cls: type) -> Iterator[type]:
    yield cls
    for other in cls.__subclasses__():
        if other.__module__.startswith("tl_attnstats"):
            yield from family(other)


def pages() -> dict[str, str]:
    return {path.stem: path.read_text(encoding="utf-8") for path in PAGES.glob("*.md") if path.stem != "index"}


def cases() -> Iterator[Any]:
    """Each snippet, and the message below it."""
    for name, page in sorted(pages().items()):
        blocks = BLOCK.findall(page)
        for place, (language, code) in enumerate(blocks):
            if language == "console":
                yield pytest.param(name, None, code, id=f"{name}-{place}")
            elif language == "python":
                after = blocks[place + 1] if place + 1 < len(blocks) else ("", "")
                assert after[0] == "text", f"{name}: no message below {code}"
                yield pytest.param(name, code, after[1], id=f"{name}-{place}")


def test_every_class_has_a_page_that_the_index_lists() -> None:
    assert set(pages()) == (classes() - NEVER_SEEN) | {"Interrupted"}
    index = (PAGES / "index.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^- \[(\w+)\]\(\1\.md\)", index, re.MULTILINE)) == set(pages())
    assert set(re.findall(r"^(\w+)$", index.partition("```{toctree}")[2], re.MULTILINE)) == set(pages())


def test_every_page_says_what_to_do_and_has_a_message() -> None:
    for name, page in pages().items():
        assert page.startswith(f"# {name}\n")
        assert "**What to do**" in page, name
        assert {language for language, _ in BLOCK.findall(page)} & {"text", "console"}, name


@pytest.fixture(scope="module")
def stats(tiny_decoder: Any, nlp: Any) -> ta.AttentionStats:
    return ta.collect(tiny_decoder, ta.Corpus.from_texts(SENTENCES, nlp), progress=False)


@pytest.fixture
def made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_decoder: Any, nlp: Any, stats: ta.AttentionStats
) -> dict[str, Any]:
    """What the index says the snippets begin with, with a smaller model than the demo's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(numba.config, "CACHE_DIR", numba.config.CACHE_DIR)  # a snippet changes it
    stats.save("stats.nc")
    Path("sentences.txt").write_text("\n".join(SENTENCES), encoding="utf-8")
    corpus = ta.Corpus.from_texts(SENTENCES, nlp)
    return {"ta": ta, "model": tiny_decoder, "corpus": corpus, "stats": stats, "Path": Path}


@pytest.mark.parametrize(("name", "code", "message"), [*cases()])
def test_a_snippet_raises_what_the_page_says(
    name: str,
    code: str | None,
    message: str,
    made: dict[str, Any],
    smollm2_tokenizer: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
) -> None:
    if code is None:
        assert_printed(name, message, monkeypatch, capsys)
        return
    if name in ("SourcesDisagree", "PlainAttention", "MemoryShort"):
        made["model"] = tiny.decoder(smollm2_tokenizer)  # not the shared one, of which a proof may be known already
    kind = getattr(ta.errors, name, None) or getattr(ta, name)
    if issubclass(kind, Warning):
        with pytest.warns(kind) as record:
            exec(code, made)
        said = next(str(warning.message) for warning in record if warning.category is kind)
    else:
        with pytest.raises(kind) as caught:
            exec(code, made)
        assert type(caught.value) is kind
        said = str(caught.value)
    plt.close("all")
    assert_says(f"{name}: {said}", message)


def assert_printed(name: str, session: str, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """A command prints the error that the page shows, which is of the page's class."""
    first, _, expected = session.partition("\n")
    raised = []
    in_words = cli._in_words
    monkeypatch.setattr(cli, "_in_words", lambda error: raised.append(type(error).__name__) or in_words(error))
    command, *arguments = shlex.split(first.removeprefix("$ "))
    assert command == "attnstats"
    assert cli.main(arguments) == 2
    assert raised == [name]
    assert_says(capsys.readouterr().err, expected)


def assert_says(said: str, shown: str) -> None:
    """The same words. Lines may be broken elsewhere, and … stands for anything."""
    pattern = re.escape(" ".join(shown.split())).replace("…", ".*")
    assert re.fullmatch(pattern, " ".join(said.split())), f"{said!r} is not {shown!r}"
