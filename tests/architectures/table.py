"""table"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Architecture:
    config: Mapping[str, Any] = field(default_factory=dict)
    scale: float = 24
    tokenizer: str = "decoder"


SLIDING_AND_FULL = {"layer_types": ["sliding_attention", "full_attention"]}
LINEAR_AND_FULL = {"num_hidden_layers": 4, "layer_types": ["linear_attention", "full_attention"] * 2}
CONV = {"num_hidden_layers": 4, "layer_types": ["conv", "full_attention"] * 2}
MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 16, "num_hidden_layers": 4}
A = Architecture
PAIR = dict(tokenizer="encoder–decoder")
START = {"decoder_start_token_id": 0}
G3N = {
    "num_hidden_layers": 4,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
    "num_kv_shared_layers": 0,
    "laurel_rank": 4,
    "activation_sparsity_pattern": [0.0] * 4,
}
MROPE = {"rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}}
ARCHITECTURES: dict[str, Architecture] = {
    "GPTNeoForCausalLM": A({"attention_types": [[["global", "local"], 1]]}, scale=6),
    "BambaForCausalLM": A({**MAMBA, "attn_layer_indices": [1, 3]}),
    "GraniteMoeHybridForCausalLM": A({**MAMBA, "layer_types": ["mamba", "attention"] * 2}, scale=6),
    "Mamba2ForCausalLM": A({"num_heads": 4, "head_dim": 16}),
    "Zamba2ForCausalLM": A(
        {
            "num_hidden_layers": 4,
            "layer_types": ["mamba", "hybrid"] * 2,
            "hybrid_layer_ids": [1, 3],
            "num_mem_blocks": 1,
        },
        scale=8,
    ),
    "Lfm2MoeForCausalLM": A(CONV),
    "Lfm2ForCausalLM": A(CONV),
    "Florence2ForConditionalGeneration": A(
        {
            "vision_config": {
                "depths": [1],
                "patch_size": [7],
                "patch_stride": [4],
                "patch_padding": [3],
                "patch_prenorm": [False],
                "embed_dim": [32],
                "num_heads": [4],
                "num_groups": [4],
                "window_size": 4,
            },
            "projection_dim": 32,
            "text_config": {"bos_token_id": 101, "eos_token_id": 102, "decoder_start_token_id": 102},
        },
        **PAIR,
    ),
    "Emu3ForConditionalGeneration": A(
        {
            "vocabulary_map": {"<image>": 3},
            "vq_config": {
                "codebook_size": 16,
                "base_channels": 32,
                "channel_multiplier": [1],
                "num_attention_heads": 1,
                "attn_resolutions": [],
            },
        }
    ),
    "RecurrentGemmaForCausalLM": A({"num_hidden_layers": 3}, scale=8),
    "Gemma3nForConditionalGeneration": A({"text_config": G3N}, scale=8),
    "JambaForCausalLM": A(
        {"attn_layer_period": 2, "attn_layer_offset": 1, "use_mamba_kernels": False, "num_hidden_layers": 4}
    ),
    "DeepseekV4ForCausalLM": A(
        {
            "num_hidden_layers": 3,
            "layer_types": ["sliding_attention", "compressed_sparse_attention", "heavily_compressed_attention"],
            "compress_rates": {"compressed_sparse_attention": 2, "heavily_compressed_attention": 4},
        }
    ),
    "LagunaForCausalLM": A(
        {
            "num_hidden_layers": 4,
            "num_attention_heads_per_layer": [4, 2, 4, 2],
            "layer_types": ["sliding_attention", "full_attention"] * 2,
        }
    ),
    "GPT2LMHeadModel": A(),
    "GraniteForCausalLM": A(scale=6),
    "GraniteMoeForCausalLM": A(scale=6),
    "GptOssForCausalLM": A({**SLIDING_AND_FULL}, scale=12),
    "NemotronForCausalLM": A(scale=12),
    "Phi3ForCausalLM": A(scale=12),
    "BertForMaskedLM": A(tokenizer="encoder"),
    "RobertaForMaskedLM": A(tokenizer="encoder"),
    "BertLMHeadModel": A(tokenizer="encoder"),
    "DistilBertForMaskedLM": A(tokenizer="encoder"),
    "Glm4vForConditionalGeneration": A({"text_config": MROPE}),
    "Qwen2_5_VLForConditionalGeneration": A({"text_config": MROPE}),
}
for n in (
    "DeepseekV2ForCausalLM",
    "DeepseekV3ForCausalLM",
    "Glm4MoeLiteForCausalLM",
    "GlmMoeDsaForCausalLM",
    "YoutuForCausalLM",
):
    ARCHITECTURES[n] = A({"num_key_value_heads": 4})
for n in ("CodeGenForCausalLM", "GPTJForCausalLM"):
    ARCHITECTURES[n] = A({"rotary_dim": 4})
for n in ("Qwen3NextForCausalLM", "Qwen3_5ForCausalLM", "Qwen3_5MoeForCausalLM"):
    ARCHITECTURES[n] = A(LINEAR_AND_FULL)
for n in ("Qwen3_5ForConditionalGeneration", "Qwen3_5MoeForConditionalGeneration"):
    ARCHITECTURES[n] = A({"text_config": LINEAR_AND_FULL})
for n in (
    "AfmoeForCausalLM",
    "Gemma2ForCausalLM",
    "Gemma3ForCausalLM",
    "Olmo3ForCausalLM",
    "Cohere2ForCausalLM",
    "Exaone4ForCausalLM",
    "VaultGemmaForCausalLM",
    "Gemma4ForCausalLM",
):
    ARCHITECTURES[n] = A(SLIDING_AND_FULL)
for n in (
    "Gemma3ForConditionalGeneration",
    "MuseGlimmerForConditionalGeneration",
    "Gemma4ForConditionalGeneration",
    "Gemma4UnifiedForConditionalGeneration",
):
    ARCHITECTURES[n] = A({"text_config": SLIDING_AND_FULL})
IDS = {"bos_token_id": 101, "eos_token_id": 102}
for n in (
    "T5ForConditionalGeneration",
    "MT5ForConditionalGeneration",
    "LongT5ForConditionalGeneration",
    "SwitchTransformersForConditionalGeneration",
):
    ARCHITECTURES[n] = A(
        {**IDS, **START, "local_radius": 2, "global_block_size": 2} if "Long" in n else {**IDS, **START},
        scale=4,
        **PAIR,
    )
for n in (
    "BartForConditionalGeneration",
    "BlenderbotForConditionalGeneration",
    "M2M100ForConditionalGeneration",
    "PegasusForConditionalGeneration",
    "MarianMTModel",
    "LEDForConditionalGeneration",
):
    ARCHITECTURES[n] = A(
        {**IDS, "decoder_start_token_id": 102, **({"attention_window": 4} if "LED" in n else {})}, **PAIR
    )
ARCHITECTURES["MBartForConditionalGeneration"] = A(IDS, **PAIR)
ARCHITECTURES["T5GemmaForConditionalGeneration"] = A(
    {"encoder": {**IDS, **SLIDING_AND_FULL}, "decoder": {**IDS, **SLIDING_AND_FULL}}, **PAIR
)
ARCHITECTURES["T5Gemma2ForConditionalGeneration"] = A(
    {"encoder": {"text_config": {**IDS, **SLIDING_AND_FULL}}, "decoder": {**IDS, **SLIDING_AND_FULL}}, **PAIR
)
