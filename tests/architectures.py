"""Tiny random models of every architecture, for breadth."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from transformer_lens.model_bridge import TransformerBridge

from tests import tiny

SIZE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 96,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GROUPED = {**SIZE, "num_key_value_heads": 2}
WINDOWED = {**GROUPED, "head_dim": 8, "sliding_window": 5}
GPT = {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 96, "n_inner": 48}
MLA = {
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 8,
    "v_head_dim": 6,
    "n_routed_experts": 2,
    "num_experts_per_tok": 1,
    "n_group": 1,
    "topk_group": 1,
    "moe_intermediate_size": 16,
    "first_k_dense_replace": 3,
}

# Model class of transformers, and its configuration. All of these ask transformers' interface for attention.
DECODERS: dict[str, dict[str, Any]] = {
    "GPT2LMHeadModel": GPT,
    "GPTBigCodeForCausalLM": GPT,
    "GPTNeoXForCausalLM": SIZE,
    "OPTForCausalLM": {**SIZE, "ffn_dim": 48, "word_embed_proj_dim": 32},
    "LlamaForCausalLM": GROUPED,
    "MistralForCausalLM": WINDOWED,
    "MixtralForCausalLM": {**GROUPED, "num_local_experts": 2, "sliding_window": None},
    "GemmaForCausalLM": {**GROUPED, "head_dim": 8},
    "Gemma2ForCausalLM": {**WINDOWED, "query_pre_attn_scalar": 8},  # soft cap
    "Gemma3ForCausalLM": {**WINDOWED, "query_pre_attn_scalar": 8},
    "Qwen2ForCausalLM": GROUPED,
    "Qwen3ForCausalLM": {**GROUPED, "head_dim": 8},
    "PhiForCausalLM": GROUPED,
    "Phi3ForCausalLM": GROUPED,
    "StableLmForCausalLM": GROUPED,
    "OlmoForCausalLM": GROUPED,
    "Olmo2ForCausalLM": GROUPED,
    "CohereForCausalLM": GROUPED,
    "Starcoder2ForCausalLM": GROUPED,
    "SmolLM3ForCausalLM": GROUPED,
    "GraniteForCausalLM": GROUPED,
    "DeepseekV3ForCausalLM": {**SIZE, "num_key_value_heads": 4, **MLA},  # values narrower than keys
}
ENCODERS: dict[str, dict[str, Any]] = {"BertForMaskedLM": SIZE, "RobertaForMaskedLM": SIZE}
# These compute attention in code of their own, which only pattern hooks can read.
OWN_ATTENTION: dict[str, dict[str, Any]] = {
    "GPTJForCausalLM": {**GPT, "rotary_dim": 4},
    "BloomForCausalLM": {"hidden_size": 32, "n_layer": 3, "n_head": 4},
    "FalconForCausalLM": {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "alibi": False},
}


def bridge(architecture: str, config: dict[str, Any], tokenizer: Any) -> TransformerBridge:
    """A randomly initialised model of a class of transformers, booted."""
    torch.manual_seed(0)
    model_class = getattr(transformers, architecture)
    made = model_class.config_class(**config, vocab_size=len(tokenizer), attn_implementation="eager")
    return tiny._boot(model_class(made), tokenizer, architecture)
