"""The facts that leave the scanner: plain frozen records without torch.

Words used everywhere: a **dimension** is one scalar coordinate of a parameter; a **row** is one output unit or
token; a **block** is a contiguous run of rows; **base** and **candidate** are the two sides; **delta** is
candidate minus base, in float32, and every sum over it is in float64. Vectors count as one row; tensors of more
than two axes are flattened to ``shape[0]`` rows. All intervals are half-open: the start is included, the end is not.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Rows = tuple[int, int]
"""A half-open run of row indices: start included, end excluded."""

F64 = npt.NDArray[np.float64]
F32 = npt.NDArray[np.float32]

LineageStatus = Literal["verified", "contradicted", "unverified"]
Relation = Literal["finetune", "adapter", "merge", "quantized", "identical", "unknown"]
Role = Literal[
    "embedding",  # token rows, input side
    "unembedding",  # token rows, output side (lm_head)
    "position",  # position and segment rows
    "query",
    "key",
    "value",
    "attention_output",
    "attention",  # `attention`: fused projections
    "mlp_in",
    "mlp_gate",
    "mlp_out",
    "norm",
    "bias",
    "pooler",
    "head",
    "router",
    "conv",
    "other",
]
"""What a tensor does in the network; tensors are only ever compared with others of the same role."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RepoRef:
    """A pinned model: a Hub repository at a commit, or a local folder.

    Exactly one of ``repo_id`` and ``path`` is set. ``revision`` is 40 hex digits for a Hub repository and None
    for a folder.
    """

    repo_id: str | None = None
    path: str | None = None
    revision: str | None = None

    @property
    def name(self) -> str:
        """The repository id, or the folder."""
        return self.repo_id or self.path or ""

    def __str__(self) -> str:
        return f"{self.name}@{self.revision}" if self.revision else self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Skip:
    """Something that was not read or not compared, and why. A skip is a result, never a log line.

    ``unread`` is true when weights that belong to the model could not be read: whatever else was measured, such a
    scan cannot end with nothing found.
    """

    what: str
    why: str
    unread: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """One file of a repository; hashes are those the server declares (None when it declares none)."""

    path: str
    size_bytes: int
    sha256: str | None = None
    xet_hash: str | None = None
    blob_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CardFacts:
    """What README.md says, parsed and bounded, never rendered.

    ``metadata`` is the front matter as plain YAML values (None when absent or broken; ``problem`` says why).
    ``text`` is the whole file. ``base_models`` keeps the order of the card.
    """

    text: str | None = None
    metadata: Mapping[str, Any] | None = None
    base_models: tuple[str, ...] = ()
    relation: str | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RepoFacts:
    """The small files and the listing of one pinned repository, one bundle.

    ``config``, ``adapter_config`` and ``generation_config`` are parsed JSON objects or None.
    ``hub`` holds what the Hub's API says (``tags``, ``base_models``, ``relation``, ``gated``, ``downloads``,
    ``security``); empty for folders. ``skips`` lists small files that could not be read.
    """

    ref: RepoRef
    files: tuple[FileEntry, ...]
    card: CardFacts = field(default_factory=CardFacts)
    config: Mapping[str, Any] | None = None
    adapter_config: Mapping[str, Any] | None = None
    generation_config: Mapping[str, Any] | None = None
    mergekit_config: str | None = None
    hub: Mapping[str, Any] = field(default_factory=dict)
    skips: tuple[Skip, ...] = ()

    def file(self, path: str) -> FileEntry | None:
        """The entry of that exact path, or None."""
        return next((entry for entry in self.files if entry.path == path), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenTable:
    """The tokens of a vocabulary, by id.

    ``texts[i]`` is token i as the vocabulary writes it ("" when the id has none; byte-level tokens are decoded,
    so that ``Ġfoo`` is " foo"). ``expected_log_frequency[i]`` is
    the natural logarithm of the relative frequency that the tokenizer implies for id i, up to a constant:
    −log(rank + 1) for vocabularies ordered by frequency (WordPiece, BPE merges), the stored log-probability for
    Unigram; None when nothing can be said. ``special[i]`` is true for control tokens.
    """

    kind: Literal["wordpiece", "bpe", "unigram", "unknown"]
    texts: tuple[str, ...]
    expected_log_frequency: F64 | None
    special: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class PickleImports:
    """What one pickle of the repository would import when opened, beyond what weights need.

    ``dangerous`` names can act on the computer that opens the file, ``unknown`` ones nobody has judged; both are full
    names, verbatim, bounded in number and length. ``computed`` is true when an import's name is put together while the
    file is opened, so that it cannot be told.
    """

    path: str
    dangerous: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    computed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One number with its name and unit, as measured. Non-finite values never leave the scanner."""

    name: str
    value: float
    unit: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One statement about the parent: where it stands and what it says, both verbatim (bounded in length)."""

    source: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One test of the declared lineage."""

    name: str
    outcome: Literal["passed", "failed", "not_run"]
    measurements: tuple[Measured, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """Who the parent is, how sure we are, and on what grounds.

    ``conflicts`` lists sentences where two claims disagree. ``chain`` is the walk from the base to the root of the
    family (base first), as declared.
    """

    candidate: RepoRef
    base: RepoRef | None
    relation: Relation
    status: LineageStatus
    claims: tuple[Claim, ...] = ()
    checks: tuple[Check, ...] = ()
    conflicts: tuple[str, ...] = ()
    chain: tuple[str, ...] = ()
    runner_up: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorMeta:
    """One tensor of a checkpoint.

    ``dtype`` is the safetensors name (F64, F32, F16, BF16, F8_E4M3, F8_E5M2, I8 …). ``start`` and ``end`` are byte
    offsets in ``file``, counted from the beginning of the file. ``scheme`` names the quantiser ("GGUF Q4_K", "GPTQ
    4-bit") where ``dtype`` is only what the stored codes are decoded to.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: str
    start: int
    end: int
    scheme: str | None = None

    @property
    def count(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64)) if self.shape else 1

    @property
    def rows_cols(self) -> tuple[int, int]:
        """The two-dimensional view: vectors and scalars are one row, higher ranks flatten to shape[0] rows."""
        if len(self.shape) < 2:
            return 1, self.count
        rows = self.shape[0]
        return rows, (self.count // rows if rows else 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class PairSpec:
    """Two tensors that play the same part on both sides.

    ``rows`` are the rows that correspond (half-open, the same on both sides): fewer than the tensor has when the
    vocabulary was resized. ``layer`` is the block index or None. ``role`` says what the tensor does. ``runs`` are the
    runs within ``rows`` that are compared (half-open, ascending, apart); empty for all of them. Whatever is measured
    per row counts the compared rows alone, one after the other: ``row_at`` says which row of the tensor that is.
    """

    name: str
    base: TensorMeta
    candidate: TensorMeta
    role: Role
    layer: int | None
    rows: Rows
    runs: tuple[Rows, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """The candidate's shape."""
        return self.candidate.shape

    @property
    def compared_rows(self) -> int:
        """Number of rows that are compared."""
        return sum(end - first for first, end in self.runs or (self.rows,))

    @property
    def sampled(self) -> bool:
        """True when only some of the rows that correspond are compared."""
        return self.compared_rows < self.rows[1] - self.rows[0]

    def row_at(self, place: int) -> int:
        """The row of the tensor that is compared as number ``place``, counted from 0.

        Raises:
            IndexError: fewer rows are compared.
        """
        for first, end in self.runs or (self.rows,):
            if place < end - first:
                return first + place
            place -= end - first
        raise IndexError(place)

    def place_of(self, row: int) -> int:
        """The number under which a row of the tensor is compared; the inverse of ``row_at``.

        Raises:
            IndexError: the row is not compared.
        """
        before = 0
        for first, end in self.runs or (self.rows,):
            if first <= row < end:
                return before + row - first
            before += end - first
        raise IndexError(row)

    def row_indices(self) -> npt.NDArray[np.int64]:
        """All compared rows in order, int64 ``[compared_rows]``."""
        return np.concatenate([np.arange(first, end) for first, end in self.runs or (self.rows,)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Alignment:
    """The pairs to compare and everything that could not be paired, with the reason."""

    pairs: tuple[PairSpec, ...]
    skips: tuple[Skip, ...]
    parameters_total: int
    added_rows: Mapping[str, Rows] = field(default_factory=dict)
    """Pair name → rows that only the candidate has (added tokens)."""

    @property
    def parameters_compared(self) -> int:
        """Elements of the candidate that have a partner."""
        return sum(p.compared_rows * p.candidate.rows_cols[1] for p in self.pairs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Residual:
    """How far the delta departs from the separable null.

    Under the null rows and columns act independently: E[δ²ᵢⱼ] = rᵢ cⱼ / Σ with rᵢ, cⱼ the row and column sums of δ²
    and Σ their total (the factored second moment of Adafactor, Shazeer & Stern 2018, eq. 4-6). The residual of
    dimension (i, j) is ρᵢⱼ = δ²ᵢⱼ Σ / (rᵢ cⱼ); its mean is 1 by construction.

    ``mean_square`` is the mean of ρ² over the dimensions with rᵢ cⱼ > 0: 3 for independent Gaussian entries, near 1
    for an exactly rank-one delta, large for isolated entries. ``top`` lists the largest residuals as
    (row, column, ρ), largest first, at most one per column; rows count from the first compared one.
    """

    mean_square: float
    maximum: float
    top: tuple[tuple[int, int, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Factors:
    """How the directions lie to each other of which the two factors of an adapter's product consist.

    ``down_overlap`` is n·Σcos² over all pairs of rows of ``lora_A`` ``[rank, n]`` and ``up_overlap`` m·Σcos² over those
    of columns of ``lora_B`` ``[m, rank]``, with ``down_pairs`` and ``up_pairs`` pairs; rows and columns of nothing but
    zeros take no part. Directions drawn at random give about the number of pairs (chi-squared), those of a singular
    value decomposition give 0 but for rounding, and those that were trained give more.
    """

    down_overlap: float
    down_pairs: int
    up_overlap: float
    up_pairs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Spectrum:
    """Leading singular values of the delta of one tensor.

    ``values`` are in weight units, largest first; ``energy`` is ‖Δ‖²_F, so ``values[0]**2 / energy`` is the share
    of the first direction. ``exact`` is false for a sketch. ``left_top`` and ``right_top`` are the largest entries
    of the first singular vectors as (index, value). ``left`` and ``right`` are those vectors whole, float32 ``[rows]``
    and ``[cols]`` of norm 1, where they are of use: both of matrices that write to the residual stream, the right one
    of token tables; None elsewhere. Their common sign is that of ``left_top`` and ``right_top``. ``factors`` is known
    of the products of separate adapters alone.
    """

    values: tuple[float, ...]
    energy: float
    exact: bool
    left_top: tuple[tuple[int, float], ...] = ()
    right_top: tuple[tuple[int, float], ...] = ()
    left: F32 | None = field(default=None, compare=False, repr=False)
    right: F32 | None = field(default=None, compare=False, repr=False)
    factors: Factors | None = None

    @property
    def top_share(self) -> float:
        """Share of the energy in the first direction, in [0, 1]."""
        return self.values[0] ** 2 / self.energy if self.values and self.energy > 0 else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CodingDrift:
    """The delta of a tensor that is stored in a quantiser's codes, against the error that this quantiser makes.

    The *reach* of an element is half the distance to the neighbouring code (the larger of the two), in weight units:
    rounding to the nearest code leaves no larger error. Rows are the compared ones. ``row_expected_sq`` is
    Σⱼ reach²ᵢⱼ / 3, float64 ``[rows]``, the energy of errors spread evenly within reach; ``row_error_sq`` is the energy
    of candidate minus ``column_gains`` times base. ``row_peak`` is the largest |error| / reach of each row and
    ``row_peak_column`` where it lies.

    ``reproduced`` counts the elements equal to what the quantiser makes of the base, bit for bit, and
    ``row_strays`` those that are not, float64 ``[rows]``; None for quantisers that choose their codes by
    other means than the weights. ``reproduced_through`` is the dtype that the base was cast to before ("" for none).
    ``column_gains`` are the smallest and largest factor that was found between the columns of both sides; None when
    the scheme does not rescale columns. ``nearest`` is true where honest errors stay within reach.
    """

    scheme: str
    row_expected_sq: F64
    row_error_sq: F64
    row_peak: F64
    row_peak_column: npt.NDArray[np.int64]
    reproduced: int | None = None
    reproduced_through: str = ""
    row_strays: F64 | None = None
    column_gains: tuple[float, float] | None = None
    nearest: bool = False

    @property
    def expected_l2(self) -> float:
        """The norm of error that rounding to the nearest code is expected to leave, in weight units."""
        return float(np.sqrt(self.row_expected_sq.sum()))

    @property
    def error_ratio(self) -> float | None:
        """Energy of the error over the expected one: about 1 for honest rounding; None when nothing is expected."""
        expected = float(self.row_expected_sq.sum())
        return float(self.row_error_sq.sum()) / expected if expected > 0 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorDrift:
    """What moved in one tensor. Sums run over the compared rows.

    Norms are Euclidean, in weight units. ``row_delta_sq`` is Σⱼ δ²ᵢⱼ, float64 ``[rows]``; ``row_base_sq`` and
    ``row_dot`` (Σⱼ bᵢⱼ δᵢⱼ) likewise; ``col_delta_sq`` is Σᵢ δ²ᵢⱼ, float64 ``[cols]``, empty for tensors of more
    than 2²⁰ columns (fused experts), which have no residual and no spectrum either. ``changed`` counts dimensions
    whose value differs. ``rounding_floor`` is the ‖δ‖ that storing the base as the candidate is stored would cause
    by itself: exact for casts (0 when no precision is lost), expected for quantisers. ``nonfinite`` counts NaN and
    Inf entries on the candidate's side; they are left out of every sum, and so are those of the base
    (``base_nonfinite``).

    ``row_heading`` says where each row of a token table went: float16 ``[rows, 16]``, a Gaussian projection of δᵢ
    scaled to norm 1 (0 for rows that did not move), so that the product of two rows of it estimates the cosine between
    their changes with a standard error of 0.25 at most. None for other tensors.

    ``sample`` is what a budgeted scan measured of this tensor before it went on and read more of it: the statistics
    that depend on how many rows they see are compared with siblings of as many rows.
    """

    spec: PairSpec
    count: int
    changed: int
    nonfinite: int
    base_nonfinite: int
    base_l2: float
    candidate_l2: float
    delta_l2: float
    dot: float
    rounding_floor: float
    row_delta_sq: F64
    row_base_sq: F64
    row_dot: F64
    col_delta_sq: F64
    residual: Residual | None = None
    spectrum: Spectrum | None = None
    coding: CodingDrift | None = None
    row_heading: npt.NDArray[np.float16] | None = field(default=None, compare=False, repr=False)
    sample: "TensorDrift | None" = None

    @property
    def relative_l2(self) -> float:
        """‖δ‖ / ‖base‖; 0 when both are 0, and ‖δ‖ itself when only the base is 0."""
        if self.base_l2 > 0:
            return self.delta_l2 / self.base_l2
        return self.delta_l2

    @property
    def cosine(self) -> float | None:
        """Cosine between base and candidate, in [−1, 1]; None when either is zero."""
        norms = self.base_l2 * self.candidate_l2
        if norms <= 0:
            return None
        return float(np.clip((self.base_l2**2 + self.dot) / norms, -1.0, 1.0))

    @property
    def changed_fraction(self) -> float:
        """Share of the compared dimensions whose value differs, in [0, 1]."""
        return self.changed / self.count if self.count else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """What was compared and read, in parameters and bytes of the candidate and the base together."""

    parameters_compared: int
    parameters_total: int
    bytes_read: int
    bytes_total: int
    skipped: tuple[Skip, ...] = ()

    @property
    def fraction(self) -> float:
        """Compared share of the candidate's parameters, in [0, 1]."""
        return self.parameters_compared / self.parameters_total if self.parameters_total else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How a budgeted scan chose what to read; all sizes in bytes of both sides together.

    ``budget_bytes`` is what was asked for, ``escalation_bytes`` what may be read beyond it where the sample is unusual.
    ``checked_bytes`` went into the check of the base, ``planned_bytes`` into the sample. ``escalated`` names the
    tensors that were read further, ``curtailed`` those of them that did not fit whole. ``identical_tensors`` counts the
    tensors that were not read because both hashes of their files agree; ``claimed_tensors`` those whose files agree in
    one hash only, and which were therefore sampled like the rest.
    """

    budget_bytes: int
    escalation_bytes: int
    checked_bytes: int
    planned_bytes: int
    escalated_bytes: int = 0
    escalated: tuple[str, ...] = ()
    curtailed: tuple[str, ...] = ()
    identical_tensors: int = 0
    claimed_tensors: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftFacts:
    """Everything the diff measured; no tensor leaves the scanner, only this.

    ``sampling`` is None when everything that can be compared was to be read.
    """

    tensors: tuple[TensorDrift, ...]
    coverage: Coverage
    added_rows: Mapping[str, Rows] = field(default_factory=dict)
    sampling: Sampling | None = None
