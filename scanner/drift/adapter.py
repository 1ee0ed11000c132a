"""Measures what an adapter does to its base, with the exact spectrum of every low-rank delta."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

import numpy as np

from scanner.drift.low_rank import product_spectrum
from scanner.drift.measure import Progress, measure
from scanner.drift.spectrum import WRITERS
from scanner.records import F64, Alignment, DriftFacts, PairSpec, Spectrum, TensorDrift
from scanner.weights.adapted import PutOn
from scanner.weights.adapters import Target
from scanner.weights.dtypes import decode
from scanner.weights.source import BlockRequest, WeightSource


def measure_adapter(put_on: PutOn, *, progress: Progress | None = None, threads: int | None = None) -> DriftFacts:
    """Measure the drift of everything that the adapter changes.

    Low-rank deltas skip the sketch: their spectrum comes from the factors (``low_rank.product_spectrum``).

    Args:
        put_on: the adapter on its base.
        progress: as for ``measure``, told of both passes in turn.
        threads: as for ``measure``.
    """
    targets = {target.name: target for target in put_on.candidate.targets if target.low_rank}
    thin = [pair for pair in put_on.alignment.pairs if pair.name in targets]
    rest = [pair for pair in put_on.alignment.pairs if pair.name not in targets]
    base, candidate = put_on.base, put_on.candidate
    first = measure(_only(put_on, thin), base, candidate, depth="residual", progress=progress, threads=threads)
    writers = {pair.name for pair in thin if pair.role in WRITERS}
    spectra = dict(_spectra([targets[tensor.spec.name] for tensor in first.tensors], candidate.inner, writers))
    exact = [replace(tensor, spectrum=spectra.get(tensor.spec.name)) for tensor in first.tensors]
    second = measure(_only(put_on, rest), base, candidate, progress=progress, threads=threads)
    return _joined(put_on, exact, first, second)


def _only(put_on: PutOn, pairs: Sequence[PairSpec]) -> Alignment:
    return replace(put_on.alignment, pairs=tuple(pairs))


def _spectra(
    targets: Sequence[Target], adapter: WeightSource, writers: Collection[str]
) -> Iterator[tuple[str, Spectrum | None]]:
    """The spectrum of each target, from its factors, which are read again: they are small beside the base."""
    parts = [[part for part in (t.up, t.down, t.gains) if part is not None] for t in targets]
    wanted = [BlockRequest(name=part.name, rows=(0, part.rows_cols[0])) for found in parts for part in found]
    blocks = adapter.stream(wanted)
    for target, found in zip(targets, parts, strict=True):
        numbers: list[F64] = []
        for _ in found:
            block = next(blocks)
            numbers.append(decode(block.values, block.dtype).astype(np.float64))
        up, down, *gains = numbers
        with np.errstate(all="ignore"):
            up = up * gains[0].reshape(1, -1) if gains else up
        yield target.name, _turned(product_spectrum(up, down, target.scale, writer=target.name in writers), target)


def _turned(spectrum: Spectrum | None, target: Target) -> Spectrum | None:
    """The spectrum of the weight as it lies: left and right change places where it is transposed."""
    if spectrum is None or not target.flipped:
        return spectrum
    sign = 1.0 if not spectrum.left_top or spectrum.left_top[0][1] > 0 else -1.0
    left, right = (tuple((i, sign * v) for i, v in top) for top in (spectrum.left_top, spectrum.right_top))
    turned = [vector if vector is None else np.float32(sign) * vector for vector in (spectrum.left, spectrum.right)]
    return replace(spectrum, left_top=right, right_top=left, left=turned[1], right=turned[0])


def _joined(put_on: PutOn, exact: Sequence[TensorDrift], first: DriftFacts, second: DriftFacts) -> DriftFacts:
    """Both passes as one, in the order of the alignment."""
    found = {tensor.spec.name: tensor for tensor in (*exact, *second.tensors)}
    order = [pair.name for pair in put_on.alignment.pairs if pair.name in found]
    skips = dict.fromkeys((*first.coverage.skipped, *second.coverage.skipped))
    coverage = replace(
        second.coverage,
        parameters_compared=first.coverage.parameters_compared + second.coverage.parameters_compared,
        skipped=tuple(skips),
    )
    return DriftFacts(
        tensors=tuple(found[name] for name in order), coverage=coverage, added_rows=put_on.alignment.added_rows
    )
