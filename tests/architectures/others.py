"""Entries of encoder–decoders, of multimodal models, and of adapters without a model to test with."""

from __future__ import annotations

from typing import Any

from tests.architectures.table import BOTH_KINDS, DIFFERS, IMAGES, LINEAR, OWN_ATTENTION, SOUND, Architecture, unhooked

IDS = {"bos_token_id": 101, "eos_token_id": 102}  # of the tests' tokenizer


def pair(start: int | None = 102, config: dict[str, Any] | None = None, **more: Any) -> Architecture:
    """An encoder–decoder; `start` is the token id with which its decoder begins."""
    begins = {} if start is None else {"decoder_start_token_id": start}
    return Architecture({**IDS, **begins, **(config or {})}, reads="pair", **{"peak": 0.2, **more})


def silent(*streams: str) -> dict[str, str]:
    """Errors for streams whose pattern hooks never fire."""
    return {
        f"{stream}.{way}": "fired 0 times in one forward pass" for stream in streams for way in ("hooks", "streamed")
    }


ENCODER_DECODERS = {
    "BartForConditionalGeneration": pair(),
    "BlenderbotForConditionalGeneration": pair(),
    "Florence2ForConditionalGeneration": Architecture(
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
            "text_config": {**IDS, "decoder_start_token_id": 102},
        },
        "language model only; the image encoder's windows are not read",
        reads="pair",
    ),
    "LEDForConditionalGeneration": pair(
        config={"attention_window": 4},
        refused=silent("encoder", "decoder", "cross"),
        fault="no pattern hook fires, in any of its three streams (`fired 0 times in one forward pass`)",
    ),
    "LongT5ForConditionalGeneration": pair(
        0,
        {"local_radius": 2, "global_block_size": 2},
        note="decoder and cross-attention only; no hook gives the encoder's windowed attention",
        refused=silent("encoder"),
        scale=4,
    ),
    "M2M100ForConditionalGeneration": pair(),
    "MBartForConditionalGeneration": pair(None),
    "MT5ForConditionalGeneration": pair(0, scale=4),
    "MarianMTModel": pair(scaled=r"[qk]_proj"),
    "PegasusForConditionalGeneration": pair(),
    "SwitchTransformersForConditionalGeneration": pair(
        0,
        refused={
            f"{stream}.{way}": reason
            for stream in ("encoder", "decoder", "cross")
            for way, reason in (("hooks", "the pattern has shape (1, 4, "), ("streamed", DIFFERS))
        },
        fault="its pattern hooks give the relative position bias instead of the pattern, bit for bit "
        "(rows sum to −3.8 to 4.9); both sources are refused",
        scale=4,
    ),
    "T5ForConditionalGeneration": pair(0, scale=4),
    "T5Gemma2ForConditionalGeneration": Architecture(
        {"encoder": {"text_config": {**IDS, **BOTH_KINDS}}, "decoder": {**IDS, **BOTH_KINDS}},
        "windows; its decoder merges self- and cross-attention",
        refused={
            "decoder.hooks": "rows are not probabilities",
            "decoder.streamed": OWN_ATTENTION,
        },
        reads="pair",
    ),
    "T5GemmaForConditionalGeneration": Architecture(
        {"encoder": {**IDS, **BOTH_KINDS}, "decoder": {**IDS, **BOTH_KINDS}},
        "windows",
        reads="pair",
        scale=16,
    ),
    "T5WithLMHeadModel": pair(0, scale=4, model_class="T5ForConditionalGeneration"),
}


def other(reason: str, **more: Any) -> Architecture:
    """A model for sound or images."""
    return Architecture(refused=dict.fromkeys(("hooks", "streamed", "plain"), reason), **more)


def text_of(text_config: dict[str, Any] | None = None, note: str = "", **more: Any) -> Architecture:
    """A multimodal model, tested on text only."""
    config = {"text_config": text_config} if text_config else {}
    return Architecture({**config, **more.pop("config", {})}, note, **more)


SECTIONS = {"rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}}
MULTIMODAL = {
    "ASTForAudioClassification": other(SOUND),
    "AudioFlamingo3ForConditionalGeneration": text_of(),
    "DeiTForImageClassification": other(IMAGES),
    "DeiTModel": other(IMAGES),
    "Emu3ForConditionalGeneration": text_of(
        config={
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
    "Gemma3ForConditionalGeneration": text_of(BOTH_KINDS, "windows"),
    "Gemma3nForConditionalGeneration": unhooked(
        {
            "text_config": {
                "num_hidden_layers": 4,
                "layer_types": ["sliding_attention", "full_attention"] * 2,
                "num_kv_shared_layers": 0,
                "laurel_rank": 4,
                "activation_sparsity_pattern": [0.0] * 4,
            }
        },
        "windows",
        scale=8,
    ),
    "Gemma4ForConditionalGeneration": text_of(BOTH_KINDS, "windows", scale=12),
    "Gemma4UnifiedForConditionalGeneration": text_of(BOTH_KINDS, "windows", scale=12),
    "Glm4vForConditionalGeneration": text_of(SECTIONS),
    "GlmAsrForConditionalGeneration": text_of(),
    "HubertForCTC": other(SOUND),
    "HubertModel": other(SOUND),
    "Idefics3ForConditionalGeneration": text_of(),
    "Llama4ForConditionalGeneration": text_of(note="chunks"),
    "LlavaForConditionalGeneration": text_of(),
    "LlavaNextForConditionalGeneration": text_of(),
    "LlavaOnevisionForConditionalGeneration": text_of(),
    "Mistral3ForConditionalGeneration": text_of(note="windows"),
    "MuseGlimmerForConditionalGeneration": text_of(BOTH_KINDS, "windows"),
    "MusicFlamingoForConditionalGeneration": text_of(),
    "Qwen2AudioForConditionalGeneration": text_of(),
    "Qwen2_5_VLForConditionalGeneration": text_of(SECTIONS),
    "Qwen3VLForConditionalGeneration": text_of(),
    "Qwen3VLMoeForConditionalGeneration": text_of(),
    "Qwen3_5ForConditionalGeneration": text_of(LINEAR, "hybrid: some layers have attention"),
    "Qwen3_5MoeForConditionalGeneration": text_of(LINEAR, "hybrid: some layers have attention"),
    "ViTForImageClassification": other(IMAGES),
    "ViTModel": other(IMAGES, quick=True),
    "Wav2Vec2ForCTC": other(SOUND),
    "Wav2Vec2ForPreTraining": other(SOUND, boots="cannot be wrapped directly"),
    "Wav2Vec2Model": other(SOUND),
}

REMOTE = "its code is not in transformers (`trust_remote_code`)"
OTHER_CODE = "its checkpoints come from another code base; transformers has no class for them"
OWN_MODEL = "TransformerLens's own model: hooks can be read, but there is no transformers model to compare with"
UNTESTABLE = {
    name: Architecture(untestable=reason)
    for reason, names in {
        REMOTE: (
            "BD3LM BaiChuanForCausalLM BaichuanForCausalLM DreamModel ExaoneForCausalLM GPT2LMHeadCustomModel "
            "GiddForDiffusionLM HyenaDNAForCausalLM InternLM2ForCausalLM LLaDA2MoeModelLM LLaDAModelLM "
            "OpenELMForCausalLM OuroForCausalLM QwenForCausalLM RWKV7ForCausalLM RavenForCausalLM"
        ),
        OTHER_CODE: "MinGPTForCausalLM NanoGPTForCausalLM NeelSoluOldForCausalLM",
        OWN_MODEL: "TransformerLensNative TransformerLensPretrain",
    }.items()
    for name in names.split()
}
