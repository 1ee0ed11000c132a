"""From the names and dtypes of a loaded model to those of its checkpoint files.

transformers adds or strips the prefix of the base model and spells some norms anew; the files keep what they were
written with. Values that come back to the very bits that are stored are left out: they did not change.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pipelines.purify.checkpoint import Checkpoint
from pipelines.purify.job import PurifyFailed
from scanner.renaming import pair_names
from scanner.weights.dtypes import is_float

if TYPE_CHECKING:
    from torch import Tensor


def state_names(checkpoint: Checkpoint, state: "Mapping[str, Tensor]") -> dict[str, str]:
    """Return stored name → name in the loaded model, of equal shapes, for every stored float tensor that has one."""
    table = {name: meta for name, meta in checkpoint.table.items() if is_float(meta.dtype)}

    def alike(stored: str, loaded: str) -> bool:
        return table[stored].shape == tuple(state[loaded].shape)

    pairs = pair_names(table, state, alike)
    return {stored: loaded for stored, loaded in pairs.items() if alike(stored, loaded)}


def checkpoint_tensors(checkpoint: Checkpoint, state: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
    """Return what a loaded model's state changes in the checkpoint: stored name → new values in the stored dtype.

    Args:
        checkpoint: the files that the model was loaded from.
        state: ``model.state_dict()`` after the change, in any float dtype.

    Raises:
        PurifyFailed: less than half of the stored floats can be found in the model, or a new value is not finite.
    """
    names = state_names(checkpoint, state)
    stored_floats = sum(meta.count for meta in checkpoint.table.values() if is_float(meta.dtype))
    found = sum(checkpoint.table[name].count for name in names)
    if 2 * found < stored_floats:
        raise PurifyFailed(
            f"Only {found:,} of {stored_floats:,} stored values can be found in the loaded model; transformers lays "
            "this model out in another way than its files, which purification cannot write back."
        )
    changed: dict[str, Tensor] = {}
    for stored_name, loaded_name in names.items():
        stored = checkpoint.whole(stored_name)
        new = state[loaded_name].detach().cpu().to(stored.dtype).contiguous()
        if _same_bits(stored, new):
            continue
        if not bool(new.float().isfinite().all()) and bool(stored.float().isfinite().all()):
            raise PurifyFailed(f"The new values of {stored_name} are not finite; lower the learning rate.")
        changed[stored_name] = new
    return changed


def _same_bits(one: "Tensor", other: "Tensor") -> bool:
    import torch

    return bool(torch.equal(one.reshape(-1).view(torch.uint8), other.reshape(-1).view(torch.uint8)))
