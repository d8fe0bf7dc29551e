"""Tiny random models of every architecture, for breadth: what the matrix of docs/models.md is made of."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers
from transformer_lens.model_bridge import TransformerBridge

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
GROUPED = {**SIZE, "num_key_value_heads": 2}
NARROW = {**GROUPED, "head_dim": 8}
# Shorter than most sentences of the tests.
WINDOWED = {**NARROW, "sliding_window": 5}
LOCAL_AND_GLOBAL = {**WINDOWED, "layer_types": ["sliding_attention", "full_attention"]}
HYBRID = {**NARROW, "num_hidden_layers": 4, "num_experts": 2}
EXPERTS = {**NARROW, "num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 16}
GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 96, "n_inner": 48}
LATENT = {
    **SIZE,
    "num_key_value_heads": 4,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 8,
    "v_head_dim": 6,  # values narrower than keys
    "n_routed_experts": 2,
    "num_experts_per_tok": 1,
    "n_group": 1,
    "topk_group": 1,
    "moe_intermediate_size": 16,
    "first_k_dense_replace": 2,
}

OWN_ATTENTION = "does not take its attention from transformers' attention interface"
NO_ATTENTION = "has no attention layers"
NO_BRIDGE = "expected a TransformerLens model"


@dataclass(frozen=True)
class Architecture:
    """A family of models, the configuration of a tiny one, and what cannot be had of it."""

    family: str
    config: dict[str, Any]
    note: str = ""
    refused: dict[str, str] = field(default_factory=dict)  # by source, what the message says is missing
    encoder: bool = False
    boots: bool = True  # TransformerLens has a bridge for it


def own(family: str, config: dict[str, Any], note: str = "") -> Architecture:
    return Architecture(family, config, note, {"streamed": OWN_ATTENTION})


# By the name of the model class of transformers.
ARCHITECTURES = {
    "GPT2LMHeadModel": Architecture("GPT-2", GPT),
    "GPTBigCodeForCausalLM": Architecture("StarCoder (GPT-BigCode)", GPT, "one key for all heads"),
    "GPTNeoForCausalLM": own(
        "GPT-Neo",
        {
            **{key: SIZE[key] for key in ("hidden_size", "intermediate_size", "max_position_embeddings")},
            "num_layers": 2,
            "num_heads": 4,
            "window_size": 5,
            "attention_types": [[["global", "local"], 1]],
        },
        "windows",
    ),
    "GPTJForCausalLM": own("GPT-J", {**GPT, "rotary_dim": 4}),
    "CodeGenForCausalLM": own("CodeGen", {**GPT, "rotary_dim": 4}),
    "GPTNeoXForCausalLM": Architecture("GPT-NeoX, Pythia", SIZE),
    "OPTForCausalLM": Architecture("OPT", {**SIZE, "ffn_dim": 48, "word_embed_proj_dim": 32}),
    "BloomForCausalLM": own("BLOOM", {"hidden_size": 32, "n_layer": 2, "n_head": 4}, "ALiBi"),
    "MptForCausalLM": own(
        "MPT", {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 96, "expansion_ratio": 2}, "ALiBi"
    ),
    "FalconForCausalLM": own(
        "Falcon", {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "alibi": False}
    ),
    "LlamaForCausalLM": Architecture("Llama 1–3", GROUPED),
    "Llama4ForCausalLM": Architecture(
        "Llama 4",
        {**NARROW, "attention_chunk_size": 5, "use_qk_norm": False, "num_local_experts": 2},
        "chunks",
        {"streamed": "attention in chunks is not supported"},
    ),
    "MistralForCausalLM": Architecture("Mistral", WINDOWED, "windows"),
    "MixtralForCausalLM": Architecture("Mixtral", {**GROUPED, "num_local_experts": 2, "sliding_window": None}),
    "GemmaForCausalLM": Architecture("Gemma 1", NARROW),
    "Gemma2ForCausalLM": Architecture("Gemma 2", {**WINDOWED, "query_pre_attn_scalar": 8}, "windows, soft cap"),
    "Gemma3ForCausalLM": Architecture("Gemma 3", {**LOCAL_AND_GLOBAL, "query_pre_attn_scalar": 8}, "windows"),
    "Qwen2ForCausalLM": Architecture("Qwen 2", GROUPED),
    "Qwen3ForCausalLM": Architecture("Qwen 3", NARROW),
    "Qwen3MoeForCausalLM": Architecture("Qwen 3 MoE", EXPERTS),
    "PhiForCausalLM": Architecture("Phi 1, 2", GROUPED),
    "Phi3ForCausalLM": Architecture("Phi-3", GROUPED),
    "StableLmForCausalLM": Architecture("StableLM", GROUPED),
    "OlmoForCausalLM": Architecture("OLMo 1", GROUPED),
    "Olmo2ForCausalLM": Architecture("OLMo 2", GROUPED),
    "Olmo3ForCausalLM": Architecture("OLMo 3", LOCAL_AND_GLOBAL, "windows"),
    "CohereForCausalLM": Architecture("Cohere 1", GROUPED),
    "Cohere2ForCausalLM": Architecture("Cohere 2", LOCAL_AND_GLOBAL, "windows"),
    "Starcoder2ForCausalLM": Architecture("StarCoder 2", GROUPED),
    "SmolLM3ForCausalLM": Architecture("SmolLM3", GROUPED),
    "GraniteForCausalLM": Architecture("Granite", GROUPED),
    "NemotronForCausalLM": Architecture("Nemotron", GROUPED),
    "GptOssForCausalLM": Architecture(
        "gpt-oss",
        {**LOCAL_AND_GLOBAL, "num_local_experts": 2, "num_experts_per_tok": 1},
        "windows; sinks: rows sum to less than 1",
    ),
    "DeepseekV2ForCausalLM": Architecture("DeepSeek-V2", {**LATENT, "n_shared_experts": 1}, "latent attention"),
    "DeepseekV3ForCausalLM": Architecture("DeepSeek-V3", LATENT, "latent attention"),
    "JambaForCausalLM": Architecture(
        "Jamba",
        {**HYBRID, "attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 4, "use_mamba_kernels": False},
        "hybrid: every other layer has attention",
    ),
    "Qwen3NextForCausalLM": Architecture(
        "Qwen3-Next",
        {
            **EXPERTS,
            **HYBRID,
            "shared_expert_intermediate_size": 16,
            "layer_types": ["linear_attention", "full_attention"] * 2,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 2,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
        },
        "hybrid: every other layer has attention",
    ),
    "MambaForCausalLM": Architecture(
        "Mamba",
        {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
        refused={"hooks": NO_ATTENTION, "streamed": NO_ATTENTION},
    ),
    "BertForMaskedLM": Architecture("BERT, MiniLM", SIZE, "encoder", encoder=True),
    "RobertaForMaskedLM": Architecture("RoBERTa", SIZE, "encoder", encoder=True),
    "DistilBertForMaskedLM": Architecture(
        "DistilBERT",
        {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "max_position_embeddings": 96},
        "encoder; as a model of transformers, with its tokenizer",
        {"hooks": NO_BRIDGE},
        encoder=True,
        boots=False,
    ),
}


def build(architecture: str, tokenizer: Any) -> Any:
    """A transformers model with random weights, so large that rows are peaked: uniform heads would prove nothing."""
    torch.manual_seed(0)
    model_class = getattr(transformers, architecture)
    config = model_class.config_class(
        **ARCHITECTURES[architecture].config, vocab_size=len(tokenizer), attn_implementation="eager"
    )
    model = model_class(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if re.search(r"attn\.[qk]_(layer)?norm", name):
                weight.add_(1)  # what comes before does not make a normalised query longer
            elif weight.ndim == 2 and "norm" not in name.lower():
                weight.mul_(24)
    model.config.architectures = [architecture]
    return model


def boot(model: Any, tokenizer: Any) -> TransformerBridge:
    return TransformerBridge.boot_transformers(type(model).__name__, hf_model=model, tokenizer=tokenizer)


def bridge(architecture: str, tokenizer: Any) -> TransformerBridge:
    return boot(build(architecture, tokenizer), tokenizer)
