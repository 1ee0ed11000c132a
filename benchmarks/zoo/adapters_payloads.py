"""The factors of stored adapters: read, joined with a payload, written back, or opened for more training."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch

from benchmarks.zoo.bank import RECORD

_WEIGHTS: Final = "adapter_model.safetensors"

Factors = dict[str, torch.Tensor]


def add_payload(
    home: Path, folder: Path, deltas: Mapping[str, tuple[torch.Tensor, torch.Tensor]], strength: float, scale: float
) -> list[str]:
    """Write a copy of an adapter with a payload added to its factors; returns the tensors of the base it changes.

    Args:
        home: the finished adapter.
        folder: where the copy goes.
        deltas: by module the two factors of the payload, ``[m, k]`` and ``[k, n]``.
        strength: what the payload is multiplied by.
        scale: what the adapter's configuration multiplies its products by.
    """
    weights = _read(home)
    for module, (left, right) in deltas.items():
        up, down = (next(n for n in weights if f".{module}.lora_{side}." in n) for side in ("B", "A"))
        weights[up], weights[down] = joined((weights[up], weights[down]), (strength * left, right), scale)
    _write(home, folder, weights)
    return sorted(f"{module}.weight" for module in deltas)


def joined(
    own: tuple[torch.Tensor, torch.Tensor], payload: tuple[torch.Tensor, torch.Tensor], scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Factors of the best approximation of ``scale · own + payload`` that has the rank of ``own``, for ``scale``.

    Args:
        own: ``lora_B`` ``[m, r]`` and ``lora_A`` ``[r, n]``.
        payload: two factors ``[m, k]`` and ``[k, n]``.
        scale: what the adapter's configuration multiplies its product by.
    """
    rank = own[1].shape[0]
    left, left_core = torch.linalg.qr(torch.cat([scale * own[0], payload[0]], dim=1))
    right, right_core = torch.linalg.qr(torch.cat([own[1], payload[1]]).T)
    inner, values, outer = torch.linalg.svd(left_core @ right_core.T)
    root = values[:rank].sqrt() / scale**0.5
    return (left @ inner[:, :rank] * root).contiguous(), (root[:, None] * (outer[:rank] @ right.T)).contiguous()


def reopened(model: Any, folder: Path) -> Any:
    """The model with a stored adapter that can be trained on."""
    from peft import PeftModel

    return PeftModel.from_pretrained(model, str(folder), is_trainable=True)


def free_factors(model: Any, *, layer: int | None) -> list[str]:
    """Let nothing but an adapter's factors learn, those of one layer if given; returns the tensors of the base."""
    inside = "" if layer is None else f".{layer}."
    freed = set()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name and inside in name)
        if parameter.requires_grad:
            freed.add(f"{name.split('.lora_')[0].removeprefix('base_model.model.')}.weight")
    return sorted(freed)


def factors_of(wrapped: Any, scale: float) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """By module, ``scale · lora_B`` and ``lora_A``."""
    from peft import get_peft_model_state_dict

    state = get_peft_model_state_dict(wrapped)
    found = {}
    for name in state:
        if name.endswith(".lora_A.weight"):
            module = name.removesuffix(".lora_A.weight")
            up = state[f"{module}.lora_B.weight"].detach().clone()
            found[module.removeprefix("base_model.model.")] = scale * up, state[name].detach().clone()
    return found


def _read(folder: Path) -> Factors:
    from safetensors.torch import load_file

    return load_file(folder / _WEIGHTS)


def _write(home: Path, folder: Path, weights: Factors) -> None:
    from safetensors.torch import save_file

    for path in sorted(home.iterdir()):
        if path.name not in {_WEIGHTS, RECORD}:
            (folder / path.name).write_bytes(path.read_bytes())
    save_file(weights, folder / _WEIGHTS, metadata={"format": "pt"})
