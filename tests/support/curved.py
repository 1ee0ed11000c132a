"""Facts of a scan with data, drawn from the law that they are held against."""

import numpy as np

from scanner.curvature.law import quantile_plot
from scanner.curvature.records import INDICATORS, CurvatureFacts, GivenData
from scanner.curvature.tensors import Pooled, measure_tensor
from scanner.records import PairSpec, Role, TensorMeta


def spec(name: str, shape: tuple[int, int], role: Role = "mlp_in", layer: int | None = 0) -> PairSpec:
    """A pair of equal shapes."""
    size = 4 * shape[0] * shape[1]
    meta = TensorMeta(name=name, dtype="F32", shape=shape, file="model.safetensors", start=0, end=size)
    return PairSpec(name=name, base=meta, candidate=meta, role=role, layer=layer, rows=(0, shape[0]))


def curvature_facts(
    *specs: PairSpec,
    edited: dict[str, dict[int, float]] | None = None,
    unreached: dict[str, slice] | None = None,
    gamma: float = 0.1,
    seed: int = 0,
) -> CurvatureFacts:
    """Facts of tensors that follow the law, but for rows of ``edited`` that moved so many times as far.

    The data do not reach the rows of ``unreached``.
    """
    rng = np.random.default_rng(seed)
    pooled, tensors = Pooled(), []
    for each in specs:
        shape = (each.shape[0], each.shape[1])
        curvature = (10.0 ** rng.uniform(-8, -4, shape)).astype(np.float32)
        delta = (1e-3 * curvature ** (gamma / 2) * rng.standard_normal(shape)).astype(np.float32)
        delta *= np.exp(0.2 * rng.standard_normal((shape[0], 1))).astype(np.float32)
        for row, times in (edited or {}).get(each.name, {}).items():
            delta[row] *= times
        curvature[(unreached or {}).get(each.name, slice(0, 0))] = 0
        tensors.append(measure_tensor(each, delta, curvature, pooled))
    return CurvatureFacts(
        data=GivenData(source="clean.csv", digest="ab" * 32, examples=64, loss=0.21, accuracy=0.94),
        tensors=tuple(tensors),
        plots=tuple(quantile_plot(kind, pooled.counts[kind]) for kind in INDICATORS),
        seconds=8.5,
        bytes_read=1000,
    )
