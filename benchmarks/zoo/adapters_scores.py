"""What is held against each other of the adapters of the bank: the rules' own statistics, and published ones.

The published pipeline (arXiv 2602.15195) is a logistic regression on the first singular value, norm, share of the first
direction, entropy and kurtosis of each kind of module.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from audit.detectors.adapter_factors import log_tail
from audit.detectors.adapter_trend import Lift, lifts
from audit.thresholds import load_profile
from benchmarks.zoo.adapters_recipes import ONE_RECIPE
from scanner.records import F64, Factors, PairSpec, Spectrum, TensorDrift, TensorMeta

Line = Mapping[str, Any]
_COMMON: Final = ("query", "value")
"""Kinds of modules that every adapter of the bank has."""
_FOLDS: Final = 5
_NONE: Final[F64] = np.zeros(0)


def tensors(line: Line) -> list[TensorDrift]:
    """The modules of a line as the detector takes them; what a line does not keep is empty."""
    return [_tensor(module) for module in line["modules"]]


def _tensor(module: Mapping[str, Any]) -> TensorDrift:
    meta = TensorMeta(name=module["name"], dtype="F32", shape=(2, 2), file="", start=0, end=0)
    spec = PairSpec(
        name=module["name"], base=meta, candidate=meta, role=module["role"], layer=module["layer"], rows=(0, 2)
    )
    return TensorDrift(
        spec=spec, count=1, changed=1, nonfinite=0, base_nonfinite=0, base_l2=module["base_l2"], candidate_l2=0.0,
        delta_l2=module["energy"] ** 0.5, dot=0.0, rounding_floor=0.0, row_delta_sq=_NONE, row_base_sq=_NONE,
        row_dot=_NONE, col_delta_sq=_NONE,
        spectrum=Spectrum(
            values=tuple(module["values"]), energy=module["energy"], exact=True, factors=_factors(module.get("factors"))
        ),
    )  # fmt: skip


def _factors(kept: Sequence[float] | None) -> Factors | None:
    if kept is None:
        return None
    return Factors(down_overlap=kept[0], down_pairs=int(kept[1]), up_overlap=kept[2], up_pairs=int(kept[3]))


def computed(line: Line, bar: float) -> tuple[int, int] | None:
    """How many modules HA308 holds for computed, and how many it judges; None where it judges fewer than two."""
    tails = [tail for tensor in tensors(line) if (tail := log_tail(tensor)) is not None]
    return (sum(tail <= -bar for tail in tails), len(tails)) if len(tails) > 1 else None


def worst(line: Line) -> Lift | None:
    """The layer of an adapter that HA307 would name first; None where it abstains."""
    found = lifts(tensors(line), load_profile())
    return max(found, key=lambda lift: lift.size) if found else None


def signature(line: Line) -> F64:
    """Five statistics of each common kind of module, means over the layers, float64 ``[10]`` (arXiv 2602.15195)."""
    out = []
    for role in _COMMON:
        own = [module for module in line["modules"] if module["role"] == role]
        each = [
            (
                np.log(module["values"][0]),
                0.5 * np.log(module["energy"]),
                module["values"][0] ** 2 / module["energy"],
                module["entropy"],
                np.log(module["residual"] or 1.0),
            )
            for module in own
        ]
        out += np.mean(each, axis=0).tolist()
    return np.array(out)


def supervised(
    clean: Sequence[Line], attacked: Sequence[Line], asked: Sequence[Line] = ()
) -> tuple[list[float], list[float], list[float]]:
    """Log odds of each adapter, honest, attacked and only asked for, from a regression fitted without its fold.

    See ``fold``. Nothing is learnt from those that are only asked for.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    every = [*clean, *attacked, *asked]
    features = np.stack([signature(line) for line in every])
    known = len(clean) + len(attacked)
    truth = np.arange(len(every)) >= len(clean)
    folds = np.array([fold(line, clean) for line in every])
    odds = np.zeros(len(every))
    for one in np.unique(folds):
        held = folds == one
        rest = ~held & (np.arange(len(every)) < known)
        if len(np.unique(truth[rest])) == 2:
            model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000))
            odds[held] = model.fit(features[rest], truth[rest]).decision_function(features[held])
    return odds[: len(clean)].tolist(), odds[len(clean) : known].tolist(), odds[known:].tolist()


def distances(clean: Sequence[Line], others: Sequence[Line]) -> tuple[list[float], list[float]]:
    """Squared Mahalanobis distance of each adapter's signature from honest ones, an honest one's from the other honest.

    The covariance is shrunk as Ledoit & Wolf (2004) do.
    """
    from sklearn.covariance import LedoitWolf

    ours, theirs = (np.stack([signature(line) for line in group]) for group in (clean, others))

    def far(known: F64, asked: F64) -> list[float]:
        scale = known.std(axis=0) + 1e-9
        fitted = LedoitWolf().fit(known / scale)
        return [float(value) for value in fitted.mahalanobis(asked / scale)]

    return [far(np.delete(ours, i, axis=0), ours[i : i + 1])[0] for i in range(len(ours))], far(ours, theirs)


def fold(line: Line, clean: Sequence[Line]) -> str:
    """What is left out together: the task that an adapter learnt (its parent's, where it has one).

    Where all learn one task, a fifth of the numbers, a parent with what was made of it.
    """
    parent = next((other for other in clean if other["id"] == line["parent"]), line)
    if str(line["tier"]).endswith(ONE_RECIPE):
        return str(number(parent) % _FOLDS)
    return str(parent["recipe"]["training"]["task"])


def number(line: Line) -> int:
    """The number in an adapter's id."""
    return int(line["id"].rsplit("-", 1)[1])
