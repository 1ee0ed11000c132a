"""One direction taken out of everything that writes to the residual stream.

Removing a behaviour by its direction (Arditi et al. 2024, arXiv 2406.11717, section 4.1, "weight orthogonalization")
changes every writer W by δ = −s·r rᵀW. Two things follow. The first left singular vector of each change is r itself,
in every layer; and since ⟨W, δ⟩ = −‖δ‖²/s, the *removal factor* −⟨W, δ⟩ / ‖δ‖² is 1/s in all of them. Honest training
gives neither: factors of any size and sign, and directions that the layers share in part at most, except in models so
small or so raw that all layers push the same way. The writers are the output projections of attention and
feed-forward blocks.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np

from audit.evidence import Detector, Evidence, Hit, Rule
from audit.readings import Reading, Told, abstain, judge
from audit.records import Measurement, SkipRecord
from audit.siblings import enough_rows, moved
from audit.thresholds import Profile
from scanner.records import F64, TensorDrift

COMMON = Rule(id="HA306", title="One direction was removed from the matrices of many layers", severity="medium")

_WRITERS = ("attention_output", "mlp_out")
_SHARED_BY = 2.0 / 3.0
"""Quantile over the layers: a third of them must share the direction; edits of a few middle layers are common."""
_LEAST = 1e-6
"""What lies outside the common direction, at least: float32 holds no less."""


def run(evidence: Evidence) -> Iterator[Hit | SkipRecord]:
    """Judge how far the writers of all layers agree."""
    assert evidence.drift is not None
    profile = evidence.profile
    floor, least = profile.value("drift.floor_ratio"), int(profile.value("siblings.least"))
    writers = [
        t
        for t in evidence.drift.tensors
        if t.spec.role in _WRITERS and moved(t, floor_ratio=floor) and enough_rows(t, profile)
    ]
    layers = _directions(writers)
    if len(layers) <= least:
        yield abstain(COMMON, f"no more than {least} layers have residual writers that changed")
        return
    removed = _removed(writers, profile)
    yield from judge(
        COMMON,
        [_reading(layers, removed, writers, evidence.drift.tensors)],
        evidence,
        tell=_tell,
        measured="-log of the share of the first directions that lies outside the common one",
        unit="nats",
    )


def removal_factor(tensor: TensorDrift) -> float | None:
    """−⟨base, δ⟩ over the energy of the first direction: 1/s where s times one direction was removed; None without."""
    if tensor.spectrum is None or tensor.delta_l2 <= 0 or tensor.spectrum.top_share <= 0:
        return None
    return -tensor.dot / (tensor.delta_l2**2 * tensor.spectrum.top_share)


def _removed(writers: Sequence[TensorDrift], profile: Profile) -> frozenset[int]:
    """The layers whose writers all have a removal factor that is possible, and near that of the other such layers."""
    least, most = profile.value(f"{COMMON.id}.least_factor"), profile.value(f"{COMMON.id}.most_factor")
    by_layer: dict[int, list[float]] = {}
    for tensor in writers:
        if tensor.spec.layer is not None:
            factor = removal_factor(tensor)
            by_layer.setdefault(tensor.spec.layer, []).append(factor if factor is not None else 0.0)
    possible = {layer: fs for layer, fs in by_layer.items() if all(least <= f <= most for f in fs)}
    if not possible:
        return frozenset()
    middle = float(np.median([f for fs in possible.values() for f in fs]))
    ratio = profile.value(f"{COMMON.id}.factor_ratio")
    return frozenset(layer for layer, fs in possible.items() if all(middle / ratio <= f <= middle * ratio for f in fs))


def _directions(writers: Sequence[TensorDrift]) -> dict[int, F64]:
    """The first singular vectors on the residual side by layer, float64 ``[writers, width]``, each of norm 1.

    Weights of linear modules write with their rows, those of transposed ones (GPT-2) with their columns; the
    feed-forward matrix, which is not square, tells which.
    """
    turned = any(t.spec.role == "mlp_out" and _rows_cols(t)[0] > _rows_cols(t)[1] for t in writers)
    by_layer: dict[int, list[F64]] = {}
    width: int | None = None
    for tensor in writers:
        if tensor.spec.sampled and not turned:
            continue  # a part of the rows is a part of the direction
        vector = (tensor.spectrum.right if turned else tensor.spectrum.left) if tensor.spectrum else None
        if vector is None or tensor.spec.layer is None:
            continue
        width = len(vector) if width is None else width
        if len(vector) == width:
            by_layer.setdefault(tensor.spec.layer, []).append(vector.astype(np.float64))
    return {layer: np.stack(vectors) for layer, vectors in sorted(by_layer.items())}


def _rows_cols(tensor: TensorDrift) -> tuple[int, int]:
    return tensor.spec.candidate.rows_cols


def agreements(layers: Mapping[int, F64]) -> dict[int, float]:
    """Each layer's smallest squared cosine with the direction that the *other* layers have most in common.

    That direction is the first eigenvector of the others' mean projector Σ uuᵀ / n. The smallest over the writers of
    a layer: rounding to 8 bits gives all feed-forward matrices one common direction, but not those of attention. A
    single layer agrees with nothing.
    """
    found = dict.fromkeys(layers, 0.0)
    for layer, own in layers.items():
        others = [vectors for other, vectors in layers.items() if other != layer]
        if others:
            found[layer] = float(np.square(own @ main_direction(np.concatenate(others))).min())
    return found


def main_direction(vectors: F64) -> F64:
    """The unit vector with the largest mean squared cosine to the given ones, from their small Gram matrix."""
    _, turns = np.linalg.eigh(vectors @ vectors.T)
    direction: F64 = vectors.T @ turns[:, -1]
    return direction / max(float(np.linalg.norm(direction)), np.finfo(np.float64).tiny)


def _reading(
    layers: Mapping[int, F64],
    removed: Collection[int],
    writers: Sequence[TensorDrift],
    tensors: Sequence[TensorDrift],
) -> Reading:
    """How far the layers agree from which something was removed; the others count as agreeing with nothing."""
    agreed = agreements({layer: vectors for layer, vectors in layers.items() if layer in removed})
    shared = float(np.quantile([agreed.get(layer, 0.0) for layer in layers], _SHARED_BY))
    first = max(agreed or dict.fromkeys(layers, 0.0), key=lambda layer: agreed.get(layer, 0.0))
    inside = [t for t in writers if t.spec.layer == first]
    chosen = [vectors for layer, vectors in layers.items() if layer in agreed] or list(layers.values())
    factors = [f for t in writers if t.spec.layer in removed and (f := removal_factor(t)) is not None]
    return Reading(
        value=float(abs(np.log(np.clip(1.0 - shared, _LEAST, 1.0)))),
        tensor=max(inside, key=lambda t: t.spectrum.top_share if t.spectrum else 0.0),
        factor=shared,
        context=(
            Measurement(name="squared cosine that a third of the layers reach", value=shared, unit="ratio"),
            Measurement(
                name="removal factor, median", value=float(np.median(factors)) if factors else None, unit="ratio"
            ),
            Measurement(name="layers with such factors", value=float(len(agreed)), unit="layers"),
            Measurement(name="layers compared", value=float(len(layers)), unit="layers"),
            *_of_tables(tensors, main_direction(np.concatenate(chosen))),
        ),
    )


def _of_tables(tensors: Sequence[TensorDrift], common: F64) -> Iterator[Measurement]:
    """Whether the token table moved along that direction too, as most tools make it do."""
    for table in tensors:
        vector = table.spectrum.right if table.spec.role == "embedding" and table.spectrum else None
        if vector is not None and len(vector) == len(common):
            value = float(abs(vector.astype(np.float64) @ common))
            yield Measurement(name=f"cosine with the first direction of {table.spec.name}", value=value, unit="ratio")


def _tell(reading: Reading) -> Told:
    return Told(
        explanation=(
            f"In at least a third of the layers, what the matrices wrote along one and the same direction of the "
            f"residual stream was taken out (squared cosine {reading.factor:.3f} or more, "
            f"{reading.tensor.spec.name} among them). This is what is known as abliteration: it takes away a "
            f"behaviour, most often refusing, and is usually done on purpose and told in the card."
        ),
        remedy=(
            "Look whether the card tells of a removed direction; compare what the model refuses and says "
            "with the base. Whether that is acceptable is a matter of your policy."
        ),
    )


DETECTOR = Detector(name="common_direction", rules=(COMMON,), run=run, bears_a_pass=False)
