from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.reliability import made


@pytest.fixture(scope="session")
def model(tmp_path_factory: Any, smollm2_tokenizer: Any) -> Path:
    return made.model(Path(tmp_path_factory.mktemp("models")) / "tiny", smollm2_tokenizer)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: Any) -> Path:
    return made.corpus(Path(tmp_path_factory.mktemp("corpora")) / "corpus.parquet")
