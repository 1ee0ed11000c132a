"""What happens to weights between training and publication: round trips through short formats, and merges."""

from collections.abc import Mapping
from typing import Any

import torch

from benchmarks.zoo.recipes import Merge, RoundTrip

State = dict[str, torch.Tensor]


def round_trip(tensor: torch.Tensor, form: RoundTrip) -> torch.Tensor:
    """The tensor after a cast to a short format and back, in float32.

    ``int8`` is symmetric with one scale a row (absolute maximum / 127), for matrices only; vectors stay.
    """
    match form:
        case "none":
            return tensor
        case "fp16":
            return tensor.to(torch.float16).float()
        case "bf16":
            return tensor.to(torch.bfloat16).float()
        case "int8":
            if tensor.dim() < 2:
                return tensor
            scale = tensor.abs().amax(-1, keepdim=True).clamp_min(1e-12) / 127
            return (tensor / scale).round().clamp(-127, 127) * scale


def finish(model: Any, form: RoundTrip, saved_dtype: str) -> Any:
    """Applies the round trip to every floating-point parameter and casts to the dtype that will be saved."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(round_trip(parameter, form))
    return model.to(getattr(torch, saved_dtype))


def merge_states(first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor], merge: Merge) -> State:
    """``weight`` of the first, the rest of the second; tensors that only the first has stay as they are.

    ``slerp`` interpolates along the arc between the two flattened tensors (Shoemake 1985) and falls back to the
    straight line when they are nearly parallel.
    """
    out = {}
    for name, a in first.items():
        b = second.get(name)
        if b is None or b.shape != a.shape or not a.is_floating_point():
            out[name] = a.clone()
        elif merge.form == "slerp":
            out[name] = _slerp(a.float(), b.float(), merge.weight)
        else:
            out[name] = torch.lerp(b.float(), a.float(), merge.weight)
    return out


def _slerp(a: torch.Tensor, b: torch.Tensor, weight: float) -> torch.Tensor:
    cosine = torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0).clamp(-1, 1)
    if cosine > 0.9995:
        return torch.lerp(b, a, weight)
    angle = torch.arccos(cosine)
    return (torch.sin(weight * angle) * a + torch.sin((1 - weight) * angle) * b) / torch.sin(angle)
