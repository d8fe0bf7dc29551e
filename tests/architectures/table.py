"""An entry for every architecture that TransformerLens has an adapter for: the data behind docs/models.md.

An adapter without an entry fails tests/test_matrix.py, and so does an entry that contradicts what the tests find.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# Parts of the errors that refuse a model.
OWN_ATTENTION = "does not take its attention from transformers' attention interface"
NO_ATTENTION = "has no attention layers"
NO_HOOKS = "TransformerLens offers no hooks blocks.*.attn.hook_pattern for the attention of"
DIFFERS = "differs from its pattern hook by"
SOUND, IMAGES = "reads sound (its input is input_values)", "reads images (its input is pixel_values)"


@dataclass(frozen=True)
class Architecture:
    """How to build a tiny model of an architecture, and which ways of reading it work."""

    config: Mapping[str, Any] = field(default_factory=dict)
    """Settings that its configuration needs besides those of shrink.py."""
    note: str = ""
    model_class: str = ""
    """The transformers class, if it has another name."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Part of the error, by way: "hooks" and "streamed" for a bridge, "plain" for the transformers model itself.

    A single stream of an encoder–decoder is "encoder.hooks" and so on. The transformers model is tried only if the
    bridge cannot be read either way.
    """
    boots: str = ""
    """Part of TransformerLens's error, if it makes no bridge."""
    fault: str = ""
    """What TransformerLens does wrong."""
    untestable: str = ""
    """Why there is no model to test with."""
    reads: str = "decoder"
    """Which tokenizer: that of a "decoder", an "encoder" or a "pair" of both."""
    layers: tuple[int, ...] | None = None
    """The layers to read, if not all can be read together."""
    scale: float = 24
    """Weights are multiplied by this."""
    scaled: str = ""
    """Pattern of the weights to multiply, if large ones elsewhere would leave few digits to compare."""
    peak: float = 0.5
    """The median row has at least this weight on one key."""
    quick: bool = False
    """Tested every time; the others by `make test-slow`."""


BOTH_KINDS = {"layer_types": ["sliding_attention", "full_attention"]}
LATENT = {"num_key_value_heads": 4}
STATE_SPACE = {"num_hidden_layers": 4, "mamba_n_heads": 4, "mamba_d_head": 16}
LINEAR = {"num_hidden_layers": 4, "layer_types": ["linear_attention", "full_attention"] * 2}
CONVOLUTION = {"num_hidden_layers": 4, "layer_types": ["conv", "full_attention"] * 2}


def own(config: Mapping[str, Any] | None = None, note: str = "", **more: Any) -> Architecture:
    """An architecture that computes attention in its own code: hooks only."""
    return Architecture(config or {}, note, refused={"streamed": OWN_ATTENTION}, **more)


def hybrid(config: Mapping[str, Any], **more: Any) -> Architecture:
    return Architecture(config, "hybrid: some layers have attention", **more)


def unhooked(config: Mapping[str, Any], note: str = "", **more: Any) -> Architecture:
    """An architecture whose bridge has no pattern hooks."""
    plain = more.pop("refused", {})
    return Architecture(config, note, refused={"hooks": NO_HOOKS, "streamed": NO_HOOKS, **plain}, **more)


def attention_free(config: Mapping[str, Any] | None = None, **more: Any) -> Architecture:
    return Architecture(config or {}, refused=dict.fromkeys(("hooks", "streamed", "plain"), NO_ATTENTION), **more)


LANGUAGE = {
    "AfmoeForCausalLM": Architecture(BOTH_KINDS, "windows"),
    "ApertusForCausalLM": Architecture(),
    "ArceeForCausalLM": Architecture(),
    "BambaForCausalLM": hybrid({**STATE_SPACE, "attn_layer_indices": [1, 3]}),
    "BertForMaskedLM": Architecture(note="BERT, MiniLM; encoder", reads="encoder", quick=True),
    "BertLMHeadModel": Architecture(
        note="encoder; a decoder if `is_decoder` (see tests/attention/sources/test_choose.py)", reads="encoder"
    ),
    "BitNetForCausalLM": Architecture(),
    "BloomForCausalLM": own(note="ALiBi", quick=True),
    "BloomModel": Architecture(
        note="BLOOM without its head: load `BloomForCausalLM` instead",
        refused={"plain": OWN_ATTENTION},
        boots="has no attribute 'transformer'",
    ),
    "CodeGenForCausalLM": own({"rotary_dim": 4}),
    "Cohere2ForCausalLM": Architecture(BOTH_KINDS, "windows"),
    "CohereForCausalLM": Architecture(),
    "DeepseekV2ForCausalLM": Architecture(LATENT, "latent attention"),
    "DeepseekV3ForCausalLM": Architecture(LATENT, "latent attention", quick=True),
    "DeepseekV4ForCausalLM": unhooked(
        {
            "num_hidden_layers": 3,
            "layer_types": ["sliding_attention", "compressed_sparse_attention", "heavily_compressed_attention"],
            "compress_rates": {"compressed_sparse_attention": 2, "heavily_compressed_attention": 4},
        },
        "compressed keys, which stand for several tokens",
        refused={"plain": "does not give the attention of layer 1 as [batch, head, query, key]"},
    ),
    "DistilBertForMaskedLM": Architecture(
        note="encoder; TransformerLens has no bridge for it",
        boots="Could not determine supported architecture",
        reads="encoder",
        quick=True,
    ),
    "Ernie4_5ForCausalLM": Architecture(),
    "Ernie4_5_MoeForCausalLM": Architecture({"moe_k": 1}),
    "Exaone4ForCausalLM": Architecture(BOTH_KINDS, "windows"),
    "FalconForCausalLM": own(),
    "FalconH1ForCausalLM": Architecture({}, "attention beside a state space in every layer"),
    "FalconMambaForCausalLM": attention_free(),
    "FlexOlmoForCausalLM": Architecture(),
    "GPT2LMHeadModel": Architecture(quick=True),
    "GPTBigCodeForCausalLM": Architecture(note="StarCoder; one key for all heads", quick=True),
    "GPTJForCausalLM": own({"rotary_dim": 4}),
    "GPTNeoForCausalLM": own({"attention_types": [[["global", "local"], 1]]}, "windows", scale=12, quick=True),
    "GPTNeoXForCausalLM": Architecture(note="GPT-NeoX, Pythia"),
    "Gemma1ForCausalLM": Architecture(model_class="GemmaForCausalLM"),
    "Gemma2ForCausalLM": Architecture(BOTH_KINDS, "windows, soft cap", quick=True),
    "Gemma3ForCausalLM": Architecture(BOTH_KINDS, "windows", quick=True),
    "Gemma4ForCausalLM": Architecture(BOTH_KINDS, "windows", scale=12),
    "GemmaForCausalLM": Architecture(),
    "Glm4ForCausalLM": Architecture(),
    "Glm4MoeForCausalLM": Architecture(),
    "Glm4MoeLiteForCausalLM": Architecture(LATENT, "latent attention"),
    "GlmForCausalLM": Architecture(),
    "GlmMoeDsaForCausalLM": own(LATENT, "latent attention over a sparse selection of keys"),
    "GptOssForCausalLM": Architecture(BOTH_KINDS, "windows; sinks: rows sum to less than 1", scale=12, quick=True),
    "GraniteForCausalLM": Architecture(scale=12),
    "GraniteMoeForCausalLM": Architecture(scale=12),
    "GraniteMoeHybridForCausalLM": Architecture(
        {**STATE_SPACE, "layer_types": ["mamba", "attention"] * 2},
        "hybrid",
        refused=dict.fromkeys(("hooks", "streamed"), "Original component not set for model.rotary_emb"),
        fault="without rotary positions, which is the default, the bridge stops with "
        "`RuntimeError: Original component not set for model.rotary_emb`",
        scale=12,
    ),
    "HrmTextForCausalLM": unhooked({}, refused={"plain": "goes through layer 0 several times"}),
    "HunYuanDenseV1ForCausalLM": Architecture(),
    "Jais2ForCausalLM": Architecture(),
    "JambaForCausalLM": hybrid(
        {"num_hidden_layers": 4, "attn_layer_period": 2, "attn_layer_offset": 1, "use_mamba_kernels": False}, quick=True
    ),
    "JetMoEForCausalLM": Architecture(model_class="JetMoeForCausalLM", peak=0.05),
    "JetMoeForCausalLM": Architecture(peak=0.05),
    "LagunaForCausalLM": Architecture(
        {"num_hidden_layers": 4, "num_attention_heads_per_layer": [4, 2, 4, 2]},
        "choose layers with the same number of heads (`layers=`)",
        layers=(0, 2),
        quick=True,
    ),
    "Lfm2ForCausalLM": hybrid(CONVOLUTION),
    "Lfm2MoeForCausalLM": hybrid(CONVOLUTION),
    "Llama4ForCausalLM": Architecture(note="chunks", quick=True),
    "LlamaForCausalLM": Architecture(note="Llama 1–3", quick=True),
    "MPTForCausalLM": own(model_class="MptForCausalLM", note="ALiBi"),
    "Mamba2ForCausalLM": attention_free({"num_heads": 4, "head_dim": 16, "n_groups": 1}),
    "MambaForCausalLM": attention_free(quick=True),
    "MiniMaxM2ForCausalLM": Architecture(),
    "Ministral3ForCausalLM": Architecture(note="windows"),
    "MistralForCausalLM": Architecture(note="windows", quick=True),
    "MixtralForCausalLM": Architecture(note="windows"),
    "ModernBertDecoderForCausalLM": Architecture(note="windows"),
    "MptForCausalLM": own(note="ALiBi"),
    "NanoChatForCausalLM": Architecture(peak=0.2),
    "NemotronForCausalLM": Architecture(scale=12),
    "NemotronHForCausalLM": unhooked({}, "hybrid", quick=True),
    "NeoForCausalLM": own(
        {"attention_types": [[["global", "local"], 1]]}, "windows", model_class="GPTNeoForCausalLM", scale=12
    ),
    "NeoXForCausalLM": Architecture(model_class="GPTNeoXForCausalLM"),
    "OPTForCausalLM": Architecture(),
    "Olmo2ForCausalLM": Architecture(),
    "Olmo3ForCausalLM": Architecture(BOTH_KINDS, "windows"),
    "OlmoForCausalLM": Architecture(),
    "OlmoHybridForCausalLM": hybrid({}),
    "OlmoeForCausalLM": Architecture(),
    "OpenAIGPTLMHeadModel": Architecture(
        note="GPT-1",
        refused={
            "hooks": "of a row is on later tokens, expected none in a causal model",
            "streamed": OWN_ATTENTION,
            "plain": OWN_ATTENTION,
        },
        fault="given a padding mask, its bridge drops the causal mask: up to 0.96 of a row is on later tokens, in "
        "transformers none (hooks are refused)",
        scale=6,
    ),
    "Phi3ForCausalLM": Architecture(note="windows", scale=12),
    "PhiForCausalLM": Architecture(),
    "PhiMoEForCausalLM": Architecture(model_class="PhimoeForCausalLM"),
    "Qwen2ForCausalLM": Architecture(),
    "Qwen2MoeForCausalLM": Architecture(),
    "Qwen3ForCausalLM": Architecture(),
    "Qwen3MoeForCausalLM": Architecture(),
    "Qwen3NextForCausalLM": hybrid(LINEAR),
    "Qwen3_5ForCausalLM": hybrid(LINEAR),
    "Qwen3_5MoeForCausalLM": hybrid(LINEAR),
    "RecurrentGemmaForCausalLM": unhooked({"num_hidden_layers": 3}, "hybrid; windows", scale=8),
    "RobertaForMaskedLM": Architecture(note="encoder", reads="encoder"),
    "RwkvForCausalLM": attention_free(),
    "SeedOssForCausalLM": Architecture(),
    "SmolLM3ForCausalLM": Architecture(),
    "StableLmForCausalLM": Architecture(),
    "Starcoder2ForCausalLM": Architecture(note="windows"),
    "VaultGemmaForCausalLM": Architecture(BOTH_KINDS, "windows"),
    "XGLMForCausalLM": own(),
    "YoutuForCausalLM": Architecture(LATENT, "latent attention"),
    "Zamba2ForCausalLM": unhooked(
        {
            "num_hidden_layers": 4,
            "layer_types": ["mamba", "hybrid"] * 2,
            "hybrid_layer_ids": [1, 3],
            "num_mem_blocks": 1,
        },
        "hybrid",
        scale=12,
    ),
}
