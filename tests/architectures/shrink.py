"""Configurations of tiny models of any architecture: the defaults of the class, with small sizes."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

SIZE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 96,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
NARROW = {**SIZE, "num_key_value_heads": 2, "head_dim": 8}
# Other names of these settings, and further settings.
NAMES: dict[str, Any] = {
    **NARROW,
    **dict.fromkeys(("d_model", "n_embd", "word_embed_proj_dim", "dim"), 32),
    **dict.fromkeys(("ffn_dim", "encoder_ffn_dim", "decoder_ffn_dim", "d_ff", "n_inner", "hidden_dim"), 48),
    **dict.fromkeys(("num_layers", "num_decoder_layers", "encoder_layers", "decoder_layers", "n_layer", "n_layers"), 2),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads", "num_heads", "n_head", "n_heads"), 4),
    "num_global_key_value_heads": 2,
    **dict.fromkeys(("d_kv", "global_head_dim", "attention_head_dim"), 8),
    **dict.fromkeys(("n_positions", "max_seq_len"), 96),
    **dict.fromkeys(("max_encoder_position_embeddings", "max_decoder_position_embeddings"), 96),
    # Windows and chunks are shorter than most sentences of the tests.
    **dict.fromkeys(("sliding_window", "attention_chunk_size", "local_attention", "window_size"), 5),
    "attention_window_size": 5,
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 2),
    **dict.fromkeys(("num_experts_per_tok", "top_k_experts", "n_group", "topk_group", "n_shared_experts"), 1),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 16),
    # In latent attention, values are narrower than keys.
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank"), 16),
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 8,
    "v_head_dim": 6,
    "query_pre_attn_scalar": 8,
    # Towers of multimodal models, and the projections that join them.
    **dict.fromkeys(("out_hidden_size", "projection_dim", "vision_output_dim", "projector_hidden_size"), 32),
    **dict.fromkeys(("projector_input_dim", "projector_output_dim"), 32),
    "hidden_size_per_layer_input": 8,
    "depth": 2,
    # State spaces and linear attention, which hybrids have besides attention.
    **dict.fromkeys(("mamba_d_state", "state_size", "ssm_state_size"), 4),
    **dict.fromkeys(("linear_num_key_heads", "linear_num_value_heads"), 2),
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim"), 8),
}


def arguments(config_class: Any, overrides: Mapping[str, Any], vocab_size: int) -> dict[str, Any]:
    """Arguments for a configuration class: small sizes, and `overrides`; nested ones are for sub-configurations."""
    taken = inspect.signature(config_class.__init__).parameters
    default = config_class()
    known = {**NAMES, "vocab_size": vocab_size, "vocab_size_per_layer_input": vocab_size}
    given = {
        name: value
        for name, value in known.items()
        if name in taken and not isinstance(vars(default).get(name), list | tuple)
    }
    parts = {}
    for name in config_class.sub_configs:
        part = type(getattr(default, name))
        if hasattr(part, "model_type"):
            parts[name] = {**arguments(part, overrides.get(name) or {}, vocab_size), "model_type": part.model_type}
    return {**given, **overrides, **parts}
