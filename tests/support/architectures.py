"""Small configurations of real transformers architectures, to be built on the meta device (no weights, no network)."""

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
import transformers as T  # noqa: N812  # forty names below read better with a short prefix

_SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "vocab_size": 100,
}
_CAUSAL = T.AutoModelForCausalLM
_CLASSIFY = T.AutoModelForSequenceClassification
_MASKED = T.AutoModelForMaskedLM
_SEQ2SEQ = T.AutoModelForSeq2SeqLM
_IMAGES = T.AutoModelForImageClassification
_CLIP_TEXT = {k: v for k, v in _SMALL.items() if k != "num_hidden_layers"} | {"num_hidden_layers": 1}
_CLIP_VISION = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "image_size": 16,
    "patch_size": 8,
}
_T5 = {"vocab_size": 100, "d_model": 32, "d_ff": 64, "num_layers": 2, "num_heads": 4, "d_kv": 8}
_DISTIL = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, "vocab_size": 100}
_BART = {
    "vocab_size": 100,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "max_position_embeddings": 16,
}
_GPT2 = {"vocab_size": 100, "n_embd": 32, "n_layer": 2, "n_head": 4}
_DEEPSEEK = {
    "n_routed_experts": 4,
    "n_group": 1,
    "topk_group": 1,
    "moe_intermediate_size": 8,
    "first_k_dense_replace": 1,
    "q_lora_rank": 8,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 8,
    "qk_nope_head_dim": 4,
}

ARCHITECTURES: dict[str, Callable[[], tuple[Any, Any]]] = {
    "bert-classification": lambda: (T.BertConfig(**_SMALL), _CLASSIFY),
    "bert-masked": lambda: (T.BertConfig(**_SMALL), _MASKED),
    "roberta-masked": lambda: (T.RobertaConfig(**_SMALL), _MASKED),
    "roberta-classification": lambda: (T.RobertaConfig(**_SMALL), _CLASSIFY),
    "distilbert-classification": lambda: (T.DistilBertConfig(**_DISTIL), _CLASSIFY),
    "distilbert-masked": lambda: (T.DistilBertConfig(**_DISTIL), _MASKED),
    "albert-masked": lambda: (T.AlbertConfig(embedding_size=16, **_SMALL), _MASKED),
    "electra-pretraining": lambda: (T.ElectraConfig(embedding_size=16, **_SMALL), T.AutoModelForPreTraining),
    "deberta-classification": lambda: (T.DebertaV2Config(**_SMALL), _CLASSIFY),
    "mpnet-classification": lambda: (T.MPNetConfig(**_SMALL), _CLASSIFY),
    "modernbert-masked": lambda: (
        T.ModernBertConfig(**_SMALL, pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2),
        _MASKED,
    ),
    "xlnet-classification": lambda: (
        T.XLNetConfig(vocab_size=100, d_model=32, n_layer=2, n_head=4, d_inner=64),
        _CLASSIFY,
    ),
    "gpt2": lambda: (T.GPT2Config(**_GPT2, n_positions=16), _CAUSAL),
    "gpt-neo": lambda: (
        T.GPTNeoConfig(
            vocab_size=100,
            hidden_size=32,
            num_layers=2,
            num_heads=4,
            attention_types=[[["global", "local"], 1]],
        ),
        _CAUSAL,
    ),
    "gpt-j": lambda: (T.GPTJConfig(**_GPT2, rotary_dim=8), _CAUSAL),
    "gpt-neox": lambda: (T.GPTNeoXConfig(**_SMALL), _CAUSAL),
    "opt": lambda: (
        T.OPTConfig(**_SMALL, ffn_dim=64, word_embed_proj_dim=16, max_position_embeddings=16),
        _CAUSAL,
    ),
    "bloom": lambda: (T.BloomConfig(vocab_size=100, hidden_size=32, n_layer=2, n_head=4), _CAUSAL),
    "falcon": lambda: (T.FalconConfig(**_SMALL), _CAUSAL),
    "mpt": lambda: (T.MptConfig(vocab_size=100, d_model=32, n_layers=2, n_heads=4), _CAUSAL),
    "llama": lambda: (T.LlamaConfig(**_SMALL), _CAUSAL),
    "mistral": lambda: (T.MistralConfig(**_SMALL), _CAUSAL),
    "qwen2-classification": lambda: (T.Qwen2Config(**_SMALL), _CLASSIFY),
    "qwen3": lambda: (T.Qwen3Config(**_SMALL), _CAUSAL),
    "gemma2": lambda: (T.Gemma2Config(**_SMALL), _CAUSAL),
    "phi": lambda: (T.PhiConfig(**_SMALL), _CAUSAL),
    "phi3": lambda: (T.Phi3Config(**_SMALL, pad_token_id=0), _CAUSAL),
    "starcoder2": lambda: (T.Starcoder2Config(**_SMALL), _CAUSAL),
    "olmo2": lambda: (T.Olmo2Config(**_SMALL), _CAUSAL),
    "mixtral": lambda: (T.MixtralConfig(**_SMALL, num_local_experts=2), _CAUSAL),
    "qwen2-moe": lambda: (
        T.Qwen2MoeConfig(**_SMALL, num_experts=2, moe_intermediate_size=8, shared_expert_intermediate_size=8),
        _CAUSAL,
    ),
    "deepseek-v3": lambda: (T.DeepseekV3Config(**_SMALL, **_DEEPSEEK), _CAUSAL),
    "gpt-oss": lambda: (T.GptOssConfig(**_SMALL, num_local_experts=2), _CAUSAL),
    "t5": lambda: (T.T5Config(**_T5), _SEQ2SEQ),
    "t5-gated": lambda: (
        T.T5Config(**_T5, feed_forward_proj="gated-gelu", tie_word_embeddings=False),
        _SEQ2SEQ,
    ),
    "bart": lambda: (T.BartConfig(**_BART), _SEQ2SEQ),
    "vit": lambda: (
        T.ViTConfig(**{**_CLIP_VISION, "num_hidden_layers": 2}),
        _IMAGES,
    ),
    "resnet": lambda: (T.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1]), _IMAGES),
    "convnext": lambda: (T.ConvNextConfig(hidden_sizes=[8, 16], depths=[1, 1], num_stages=2), _IMAGES),
    "clip": lambda: (T.CLIPConfig(text_config=_CLIP_TEXT, vision_config=_CLIP_VISION), T.AutoModel),
    "mamba": lambda: (
        T.MambaConfig(vocab_size=100, hidden_size=32, num_hidden_layers=1, state_size=4),
        _CAUSAL,
    ),
}


def meta_model(name: str) -> Any:
    """The architecture on the meta device: names and shapes without weights."""
    config, auto = ARCHITECTURES[name]()
    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")
        return auto.from_config(config, trust_remote_code=False)


def tensor_shapes(name: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield (name, shape) of every tensor in the architecture's state dict."""
    for key, tensor in meta_model(name).state_dict().items():
        yield key, tuple(tensor.shape)
