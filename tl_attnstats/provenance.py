"""From a group of collectors to statistics that say where they come from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from tl_attnstats.collectors.group import CollectorGroup
from tl_attnstats.corpus.corpus import Corpus
from tl_attnstats.errors import StatsError
from tl_attnstats.stats import AttentionStats


def corpus_provenance(corpus: Corpus | None) -> dict[str, Any]:
    """Where the sentences come from, and what their numbers refer to."""
    if corpus is None:
        return {"corpus": "batches given in Python", "numbering": ""}
    return {"corpus": corpus.source, "unit": corpus.unit, "numbering": corpus.identity, "numbering_size": corpus.size}


def finish(group: CollectorGroup, provenance: Mapping[str, Any]) -> AttentionStats:
    """The statistics of a group, with where they come from."""
    if not group.n_sequences:
        raise StatsError("nothing has been collected yet: no batch was completed")
    return AttentionStats(
        group.state(),
        {
            "numbering_size": group.next_number,
            **provenance,
            "settings": json.dumps({name: dict(c.settings) for name, c in group.collectors.items()}),
            "sequences": group.n_sequences,
            "tokens": group.n_tokens,
            "corpus_fingerprint": f"{group.digest:016x}",
            "versions": json.dumps(_versions()),
        },
    )


def _versions() -> dict[str, str]:
    return {
        package: version(package) for package in ("tl-attnstats", "transformer-lens", "transformers", "torch", "spacy")
    }
