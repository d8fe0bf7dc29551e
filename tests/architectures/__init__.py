"""Tiny random models of every architecture: the tests of docs/models.md run on these."""

from __future__ import annotations

import re
from contextlib import ExitStack
from importlib.metadata import version
from typing import Any
from unittest import mock

import torch
import transformers
from transformer_lens.model_bridge import TransformerBridge

from tests.architectures.others import ENCODER_DECODERS, MULTIMODAL, UNTESTABLE
from tests.architectures.shrink import NARROW, SIZE, arguments
from tests.architectures.table import LANGUAGE, Architecture

__all__ = ["ARCHITECTURES", "NARROW", "SIZE", "Architecture", "arguments", "boot", "bridge", "build"]

ARCHITECTURES: dict[str, Architecture] = dict(
    sorted({**LANGUAGE, **ENCODER_DECODERS, **MULTIMODAL, **UNTESTABLE}.items())
)

NORM_OF_QUERIES_OR_KEYS = re.compile(r"attn\.(q|k|query|key)_(layer)?norm")


def build(architecture: str, tokenizer: Any) -> Any:
    """A transformers model with large random weights, so that rows are peaked: uniform heads would prove nothing."""
    torch.manual_seed(0)
    entry = ARCHITECTURES.get(architecture, Architecture())
    model_class = getattr(transformers, entry.model_class or architecture)
    given = arguments(model_class.config_class, entry.config, len(tokenizer))
    model = model_class(model_class.config_class(**given, attn_implementation="eager")).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if NORM_OF_QUERIES_OR_KEYS.search(name):
                weight.add_(1)  # scaling a projection has no effect before a norm
            elif weight.ndim == 2 and "norm" not in name.lower() and re.search(entry.scaled, name):
                weight.mul_(entry.scale)
    model.config.architectures = [architecture]
    return model


# For models of images and sound, these functions of TransformerLens 4 install libraries that text does not need.
OF_MODALITIES = (
    "transformer_lens.model_bridge.sources.transformers.source.load_modality_processor",
    "transformer_lens.model_bridge.architecture_adapter.ArchitectureAdapter._check_required_libraries",
)


def boot(model: Any, tokenizer: Any) -> TransformerBridge:
    """A bridge, without the libraries for images and sound."""
    with ExitStack() as stack:
        if not version("transformer-lens").startswith("3."):
            for name in OF_MODALITIES:
                stack.enter_context(mock.patch(name))
        return TransformerBridge.boot_transformers(type(model).__name__, hf_model=model, tokenizer=tokenizer)


def bridge(architecture: str, tokenizer: Any) -> TransformerBridge:
    return boot(build(architecture, tokenizer), tokenizer)
