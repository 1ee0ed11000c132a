"""Real PEFT adapters on pico models, with the merged weights that peft itself makes of them."""

import warnings
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel


@contextmanager
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def llama(seed: int = 0, layers: int = 3) -> PreTrainedModel:
    """A few small layers, untied."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=320,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=False,
    )
    return LlamaForCausalLM(config)


def gpt2(seed: int = 0) -> PreTrainedModel:
    """Two small layers of Conv1D, whose weights lie the other way round."""
    torch.manual_seed(seed)
    return GPT2LMHeadModel(GPT2Config(vocab_size=320, n_embd=32, n_layer=2, n_head=4, n_positions=64))


def save_base(model: PreTrainedModel, folder: Path) -> Path:
    model.save_pretrained(folder)
    return folder


def save_adapter(
    base: PreTrainedModel,
    config: PeftConfig,
    folder: Path,
    *,
    seed: int = 1,
    size: float = 0.05,
    name: str | None = None,
) -> Path:
    """Fill every trained part with noise and save as users do; the base model is used up."""
    with quiet():
        model = get_peft_model(base, config)
        torch.manual_seed(seed)
        for key, parameter in model.named_parameters():
            if "lora_magnitude" in key:
                parameter.data *= 1 + size * torch.rand_like(parameter)
            elif parameter.requires_grad:
                parameter.data += size * torch.randn_like(parameter)
        if name is not None:
            model.peft_config["default"].base_model_name_or_path = name
        model.save_pretrained(folder)
    return folder


def merged(base: PreTrainedModel, folder: Path) -> Mapping[str, torch.Tensor]:
    """What peft makes of a fresh base and the saved adapter, in float64."""
    with quiet():
        model = PeftModel.from_pretrained(base.double(), str(folder), autocast_adapter_dtype=False).double()
        whole: Any = model.merge_and_unload()
    return whole.state_dict()
