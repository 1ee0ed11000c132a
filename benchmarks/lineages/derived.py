"""Alterations that keep descent: what people do to a fine-tune before they upload it, and what hides one."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

Tensors = dict[str, torch.Tensor]
Change = Callable[[Tensors, Tensors], Tensors]
_WEIGHTS = "model.safetensors"
_SEED = 17


def _cast(tensors: Tensors, _base: Tensors) -> Tensors:
    return {name: value.to(torch.bfloat16) for name, value in tensors.items()}


def _pruned(tensors: Tensors, _base: Tensors) -> Tensors:
    """Half of the entries of every matrix, the smallest, set to zero."""
    return {n: torch.where(v.abs() >= v.abs().median(), v, 0.0) if v.ndim > 1 else v for n, v in tensors.items()}


def _rounded(tensors: Tensors, _base: Tensors) -> Tensors:
    """Four bits a value, one scale a row, written out as floats again."""
    scales = {n: v.abs().amax(-1, keepdim=True).clamp(min=1e-12) / 7 for n, v in tensors.items()}
    return {n: (v / scales[n]).round() * scales[n] if v.ndim > 1 else v for n, v in tensors.items()}


def _renamed(tensors: Tensors, _base: Tensors) -> Tensors:
    """Names that say nothing, in another order."""
    names = sorted(tensors, key=lambda name: name[::-1])
    return {f"part.{index:03d}": tensors[name] for index, name in enumerate(names)}


def _more_tokens(tensors: Tensors, _base: Tensors) -> Tensors:
    generator = torch.Generator().manual_seed(_SEED)
    return {
        name: torch.cat([v, 0.02 * torch.randn(16, v.shape[1], generator=generator)])
        if name.endswith(("embed_tokens.weight", "lm_head.weight", "wte.weight"))
        else v
        for name, v in tensors.items()
    }


def _permuted(tensors: Tensors, _base: Tensors) -> Tensors:
    """Hidden units of every feed-forward block in another order; the model computes the same."""
    made: Tensors = {}
    for name, value in tensors.items():
        parts = name.split(".")
        layer = next((int(part) for part in parts if part.isdigit()), None)
        units = next((v.shape for n, v in tensors.items() if "mlp" in n and v.ndim > 1), (0,))
        order = np.random.default_rng([_SEED, layer or 0]).permutation(max(units))
        axes = [axis for axis, size in enumerate(value.shape) if size == max(units)] if ".mlp." in name else []
        made[name] = value.index_select(axes[0], torch.from_numpy(order)) if axes else value
    return made


def _layer_dropped(tensors: Tensors, _base: Tensors) -> Tensors:
    """The first block taken out, the others renumbered."""
    made: Tensors = {}
    for name, value in tensors.items():
        layer = next((part for part in name.split(".") if part.isdigit()), None)
        if layer == "0":
            continue
        made[name if layer is None else name.replace(f".{layer}.", f".{int(layer) - 1}.", 1)] = value
    return made


def _low_rank(tensors: Tensors, base: Tensors) -> Tensors:
    """The base plus the four strongest directions of each change: an adapter merged in."""
    made = dict(base)
    for name, value in tensors.items():
        if value.ndim > 1 and min(value.shape) > 4 and "embed" not in name and "wte" not in name and "wpe" not in name:
            left, size, right = torch.linalg.svd(value - base[name], full_matrices=False)
            made[name] = base[name] + (left[:, :4] * size[:4]) @ right[:4]
    return made


DERIVED: tuple[tuple[str, Change], ...] = (
    ("cast to BF16", _cast),
    ("half of the entries pruned", _pruned),
    ("rounded to 4 bits", _rounded),
    ("renamed and reordered", _renamed),
    ("tokens added", _more_tokens),
    ("hidden units permuted", _permuted),
    ("first layer dropped", _layer_dropped),
    ("low rank, an adapter merged in", _low_rank),
)


def derive(bank: Path, source: str, name: str, change: Change) -> Path:
    """Write the altered model beside the bank unless it is there; return its folder."""
    folder = bank / "derived" / f"{source}, {name}"
    if not folder.is_dir():
        record: Mapping[str, str] = json.loads((bank / source / "record.json").read_text())
        base = load_file(bank / record["parent"] / _WEIGHTS)
        made = change(load_file(bank / source / _WEIGHTS), base)
        unfinished = bank / "derived" / ".unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        save_file({n: v.contiguous() for n, v in made.items()}, unfinished / _WEIGHTS)
        shutil.copy(bank / source / "config.json", unfinished / "config.json")
        unfinished.rename(folder)
    return folder
