"""The seam of purification: what a method is given, what it gives back, and what it declares about itself.

A **purifier** is a function from ``PurifyJob`` to ``PurifyResult``. It writes no model folder, scans nothing by itself
and never chooses anything on the attack success rate or on ``CleanData.test``. Names of tensors are those of the
candidate's checkpoint files; ``pipelines.purify.naming`` translates the names of a loaded model into them.

Importing this module loads no torch, so that the catalogue can be shown by ``--help``.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from audit.records import AuditReport
from pipelines.progress import Progress, Quiet
from scanner.errors import CouldNotConclude
from scanner.records import Rows

if TYPE_CHECKING:
    from torch import Tensor

ModelKind = Literal["classifier", "causal", "image", "other"]
"""Sequence classification, causal language model, image classification; ``other`` has no head that we know."""
Need = Literal["no", "optional", "required"]
Tuner = Literal["vanilla", "activeness-aware", "gradient-aligned", "boosted-annealing", "lora", "ladder"]
Image = npt.NDArray[np.uint8]
"""One picture, uint8 ``[height, width, 3]``, before the model's own image processor."""


class PurifyFailed(CouldNotConclude):
    """A method could not be carried out (NaN loss, unsuitable data, a method that does not fit the model)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """One part of the clean data. ``labels[i]`` is the class index of ``inputs[i]``; empty for language models."""

    inputs: tuple[str, ...] | tuple[Image, ...]
    labels: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def texts(self) -> tuple[str, ...]:
        """The inputs as texts.

        Raises:
            TypeError: they are pictures.
        """
        texts = tuple(each for each in self.inputs if isinstance(each, str))
        if len(texts) != len(self.inputs):
            raise TypeError("these inputs are pictures")
        return texts

    @property
    def images(self) -> tuple[Image, ...]:
        """The inputs as pictures.

        Raises:
            TypeError: they are texts.
        """
        images = tuple(each for each in self.inputs if not isinstance(each, str))
        if len(images) != len(self.inputs):
            raise TypeError("these inputs are texts")
        return images


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanData:
    """Clean samples, split once with a seed and stratified by class.

    ``tune`` is what weights are fitted on (and the Fisher information is taken on), ``select`` is what ratios are
    chosen on, ``test`` only measures the outcome and is never looked at by a method. ``class_names[i]`` is the name of
    class i as the model's config has it. ``digest`` is the SHA-256 (hex) of the samples used, before splitting.
    """

    kind: Literal["text", "image"]
    tune: Split
    select: Split
    test: Split
    class_names: tuple[str, ...]
    digest: str
    source: str = ""

    @property
    def classes(self) -> int:
        """How many classes the labels stand for; 0 for language models."""
        return len(self.class_names)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """How weights are tuned, where a method tunes any. None of these means: as the method's paper has it.

    ``max_length`` is in tokens. ``max_accuracy_loss`` is the loss of accuracy on ``select`` that a method may accept
    while it searches, as a fraction (0.02 = two points).
    """

    tuner: Tuner = "vanilla"
    epochs: int | None = None
    learning_rate: float | None = None
    batch_size: int | None = None
    max_length: int = 128
    max_accuracy_loss: float = 0.02


class Edits(Protocol):
    """What changes in the checkpoint, asked for panel by panel, so that memory stays flat."""

    @property
    def names(self) -> frozenset[str]:
        """The tensors that may change, by their names in the checkpoint's files."""

    def panel(self, name: str, rows: Rows, stored: "Tensor") -> "Tensor":
        """Return the new values of some rows of a tensor.

        Args:
            name: one of ``names``.
            rows: a half-open run of rows; a vector or scalar is one row.
            stored: the candidate's values of these rows, ``[rows, ...]`` in the dtype of the file.

        Returns:
            values of the same shape and dtype; ``stored`` itself where nothing changes.
        """


@dataclass(frozen=True, slots=True)
class WholeTensors:
    """Edits that lie in memory as whole tensors, each of the shape and dtype that the file has."""

    tensors: "Mapping[str, Tensor]"

    @property
    def names(self) -> frozenset[str]:
        """The tensors at hand."""
        return frozenset(self.tensors)

    def panel(self, name: str, rows: Rows, stored: "Tensor") -> "Tensor":
        """Return the rows of the tensor at hand."""
        whole = self.tensors[name]
        if whole.dtype != stored.dtype:
            raise PurifyFailed(f"The new {name} is {whole.dtype}, but the checkpoint stores {stored.dtype}.")
        return whole[rows[0] : rows[1]] if whole.dim() > 1 else whole.reshape(stored.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class PurifyResult:
    """What a method decided: the edits and its log.

    ``log`` is JSON-able with finite numbers: ratios tried, rows reset with their tokens, losses, seeds. It lands in
    ``purification.json`` as it is. ``chosen`` says in one sentence what was done.
    """

    edits: Edits
    chosen: str
    log: Mapping[str, Any] = field(default_factory=dict)


Rescan = Callable[[PurifyResult], AuditReport]
"""Writes the outcome to a passing folder, scans it by the front door and returns the report."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PurifyJob:
    """Everything that a method may use.

    ``candidate`` and ``base`` are complete local folders (snapshots); ``base`` is None only for methods that need
    none. ``report`` is the scan of the candidate against that base. ``options`` is an instance of the method's
    ``Purifier.options()``, None when it has none. ``triggers`` are inserted texts that are known or suspected
    (words or sentences). ``work`` is a folder that survives an interruption: a method may keep checkpoints there and
    finds them again when the same job is run again (the same candidate, data, options and seed). ``rescan`` is given
    to methods that have to judge their own outcome (``auto``).
    """

    candidate: Path
    base: Path | None
    kind: ModelKind
    work: Path
    report: AuditReport | None = None
    data: CleanData | None = None
    options: object | None = None
    tuning: Tuning = field(default_factory=Tuning)
    triggers: tuple[str, ...] = ()
    with_e_pur: bool = False
    seed: int = 0
    device: str = "cpu"
    threads: int | None = None
    progress: Progress = field(default_factory=Quiet)
    rescan: Rescan | None = None

    def require_base(self) -> Path:
        """Return the base's folder.

        Raises:
            PurifyFailed: the job has none.
        """
        if self.base is None:
            raise PurifyFailed("This method needs the weights of the base; name it with --base.")
        return self.base

    def require_data(self) -> CleanData:
        """Return the clean data.

        Raises:
            PurifyFailed: the job has none.
        """
        if self.data is None:
            raise PurifyFailed("This method needs clean samples; give them with --data.")
        return self.data


@dataclass(frozen=True, slots=True, kw_only=True)
class Purifier:
    """A method and what it needs.

    ``run`` may import torch and transformers late, never at import time of the catalogue. ``options`` imports, as late,
    a frozen dataclass whose fields (with defaults) are the method's own settings, filled from ``--set name=value``;
    None when there are none. ``kinds`` are the models it fits. ``wants_probe``: where the user names no
    trigger, the scan before the method also runs the model, to find some. ``source`` is the paper.
    """

    name: str
    summary: str
    run: Callable[[PurifyJob], PurifyResult]
    kinds: frozenset[ModelKind]
    needs_data: Need = "no"
    needs_base: bool = True
    needs_report: bool = False
    wants_probe: bool = False
    options: Callable[[], type] | None = None
    source: str = ""


def steps(progress: Progress, text: str, items: Iterable[Any], total: int) -> Iterator[Any]:
    """Yield the items of a loop and tell the progress how many of ``total`` are done."""
    progress.stage(text)
    for done, item in enumerate(items):
        progress.advance(done, total)
        yield item
    progress.advance(total, total)
