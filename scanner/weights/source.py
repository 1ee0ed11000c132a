"""The weight-source seam: a table of tensors and a stream of row blocks, whatever the format."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

import numpy.typing as npt

from scanner.records import F32, RepoRef, Rows, Skip, TensorMeta


@dataclass(frozen=True, slots=True, kw_only=True)
class Coding:
    """What is known of the rounding behind one block of decoded values.

    Both functions are costly and are called at most once or twice per block, before the next block is asked for.
    ``reach`` gives float32 ``[rows, cols]``: half the distance from each value to the farther of its neighbouring
    codes, in weight units. ``again`` passes other weights, any number of whole rows, through the very same quantiser
    and decodes them; None where its codes depend on more than the weights (calibration data, searched scales).
    ``rescaled`` is true for schemes that multiply columns before they round, ``nearest`` for those whose writers round
    each weight to its nearest code and never clip, so that no honest error exceeds the reach by more than the rounding
    of scales.
    """

    reach: Callable[[], F32]
    again: Callable[[F32], F32] | None = None
    rescaled: bool = False
    nearest: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Rows of one tensor, in storage form.

    ``values`` has shape ``[rows, cols]`` and the dtype in which the bytes lie in the file: uint16 for BF16 and F16,
    uint8 for the 8-bit floats, the plain NumPy dtype otherwise; ``dtype`` (the safetensors name) says how to decode
    it (``scanner.weights.dtypes``). The array may be overwritten or unmapped once the next block is asked for.
    ``columns`` repeats the request's (None: all of them). ``coding`` says how a quantiser rounded the values, where
    they are decoded from its codes and its errors are known.
    """

    name: str
    rows: Rows
    dtype: str
    values: npt.NDArray[Any]
    columns: Rows | None = None
    coding: Coding | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockRequest:
    """Ask for rows (half-open) of a tensor; within one single row also for a run of columns (half-open).

    ``columns`` keeps a vector of any length within a bounded block.
    """

    name: str
    rows: Rows
    columns: Rows | None = None


class WeightSource(Protocol):
    """A checkpoint that can be read in blocks. Use as a context manager."""

    @property
    def ref(self) -> RepoRef:
        """Where the weights lie."""

    @property
    def table(self) -> Mapping[str, TensorMeta]:
        """Every readable tensor by name, in file order."""

    @property
    def skips(self) -> tuple[Skip, ...]:
        """Files and tensors that cannot be read, with the reason."""

    @property
    def remote(self) -> bool:
        """True when reading costs network traffic."""

    @property
    def bytes_total(self) -> int:
        """Bytes of all weight files."""

    @property
    def bytes_read(self) -> int:
        """Bytes of tensors read so far."""

    @property
    def requests(self) -> int:
        """HTTP requests made so far (0 for folders)."""

    def stream(self, wanted: Iterable[BlockRequest]) -> Iterator[Block]:
        """Yield the blocks in the order asked for, reading ahead where that hides latency.

        Raises:
            CouldNotConclude: the source cannot be read (network, corrupt file); blocks already yielded stay valid.
            KeyError: a name that is not in ``table``.
            ValueError: rows or columns outside the tensor, or columns of more than one row.
        """

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
