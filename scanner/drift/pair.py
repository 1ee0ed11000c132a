"""The measurement of one pair of tensors: takes blocks, gives a ``TensorDrift``."""

import math
from typing import Literal

from scanner.drift import kernels
from scanner.drift.coding import CodingMoments
from scanner.drift.moments import TensorMoments
from scanner.drift.residual import residual_of
from scanner.drift.spectrum import DeltaSpectrum, has_spectrum
from scanner.drift.workers import Workers
from scanner.records import PairSpec, TensorDrift
from scanner.weights.source import Block

Depth = Literal["moments", "residual", "spectrum"]
"""How much is measured: row, column and cross moments; also the residual; also the leading singular values."""


class PairMeasurement:
    """Folds the blocks of one pair, each element once, and finishes with its drift."""

    def __init__(self, spec: PairSpec, workers: Workers, *, depth: Depth, seed: int) -> None:
        """Prepare for a pair.

        Args:
            spec: the pair.
            workers: who folds.
            depth: how much to measure.
            seed: of the sketch behind the spectrum.
        """
        self._spec = spec
        self._moments = TensorMoments(spec, workers, with_residual=depth != "moments")
        spectral = depth == "spectrum" and self._moments.narrow and has_spectrum(spec)
        self._spectrum = DeltaSpectrum(spec, workers, seed=seed) if spectral else None
        self._coding = CodingMoments(spec) if spec.candidate.scheme is not None else None

    def fold(self, base: Block, candidate: Block) -> None:
        """Add the same rows of both sides.

        Raises:
            ValueError: the blocks differ in shape, or a dtype has no exact form as a float.
        """
        self._moments.fold(base, candidate)
        if self._coding is not None:
            self._coding.fold(base, candidate)
        if self._spectrum is not None:
            first = self._spec.place_of(candidate.rows[0])
            end = first + candidate.values.shape[0]
            self._spectrum.fold(base, candidate, float(self._moments.sums[kernels.ENERGY, first:end].sum()))

    def finish(self) -> TensorDrift:
        """The drift of all that was folded."""
        sums = self._moments.sums
        columns = self._moments.columns()
        totals = [float(total) for total in sums.sum(axis=1)]
        energy = totals[kernels.ENERGY]
        coding, floor = self._coding.finish() if self._coding is not None else (None, math.sqrt(columns.rounding))
        return TensorDrift(
            spec=self._spec,
            count=sums.shape[1] * self._spec.candidate.rows_cols[1],
            changed=int(totals[kernels.CHANGED]),
            nonfinite=int(totals[kernels.NONFINITE]),
            base_nonfinite=int(totals[kernels.BASE_NONFINITE]),
            base_l2=math.sqrt(totals[kernels.BASE_SQ]),
            candidate_l2=math.sqrt(totals[kernels.CANDIDATE_SQ]),
            delta_l2=math.sqrt(energy),
            dot=totals[kernels.DOT],
            rounding_floor=floor,
            row_delta_sq=sums[kernels.ENERGY].copy(),
            row_base_sq=sums[kernels.BASE_SQ].copy(),
            row_dot=sums[kernels.DOT].copy(),
            col_delta_sq=columns.energy,
            residual=residual_of(sums[kernels.ENERGY], columns) if self._moments.with_residual else None,
            spectrum=self._spectrum.finish(energy) if self._spectrum is not None else None,
            coding=coding,
            row_heading=self._spectrum.row_heading() if self._spectrum is not None else None,
        )
