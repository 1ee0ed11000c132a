"""One cell of the purification benchmark: a victim, a method, so many clean samples; rates before and after."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from audit.records import AuditReport
from benchmarks.purifying.baselines import BASELINES
from benchmarks.purifying.places import Place, place_of
from benchmarks.zoo.bank import Bank
from benchmarks.zoo.scoring import triggered_texts
from benchmarks.zoo.texts import Row, load_task, sample_rows
from benchmarks.zoo.tiers import get_tier
from pipelines.audit_repo import audit_repo
from pipelines.progress import Quiet
from pipelines.purify.catalogue import PURIFIERS
from pipelines.purify.checkpoint import open_checkpoint
from pipelines.purify.job import CleanData, PurifyJob, PurifyResult, Split, Tuning
from pipelines.purify.subject import load_subject, predict
from pipelines.purify.writer import write_model
from scanner.errors import HubAuditError
from scanner.hub import Hub

TUNE_SHARE = 0.625
"""Of the clean samples; methods choose with the rest."""
NO_DATA = 0
MAX_LENGTH = 64
STEP = ("method", "done", "why", "triggers", "confirmed", "silenced", "why_given_back", "rounds", "restored", "left")
"""What is kept of the log of each step that ``auto`` took."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """``samples`` counts clean samples in all, tuning and selecting together; 0 is none at all.

    ``family`` is a family of ``benchmarks.purifying.victims``, or the id of a model of the zoo.
    """

    task: str
    family: str
    seed: int
    method: str
    samples: int
    e_pur: bool = False

    @property
    def key(self) -> str:
        """``sst2-ep-s0/fine-mixing+e-pur/64``."""
        return f"{self.task}-{self.family}-s{self.seed}/{self.method}{'+e-pur' * self.e_pur}/{self.samples}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """What outcomes are measured on: test rows, and those outside the target class with the trigger put in."""

    rows: tuple[Row, ...]
    plain: tuple[str, ...]
    triggered: tuple[str, ...]
    target: int


def texts_of(cell: Cell, place: Place, most: int) -> Texts:
    """At most ``most`` test rows, the same for every method of a victim and for its clean twin."""
    task, attack = load_task(cell.task), place.attack
    target = attack.target(task.classes)
    rows = sample_rows(task.test, most, 5)
    others = [row for row in rows if row[1] != target]
    return Texts(
        rows=tuple(rows),
        plain=tuple(text for text, _ in others),
        triggered=tuple(triggered_texts(others, attack, 5)),
        target=target,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a model does with the texts: ``right`` of every row; ``hit``, ``floor``: called the target, of the others.

    ``hit`` is with the trigger, ``floor`` without; each a string of 0 and 1, a text each.
    """

    right: str
    floor: str
    hit: str

    def rates(self) -> dict[str, float]:
        """Shares in [0, 1]: accuracy; of other classes called the target, plain (floor) and triggered (asr)."""
        return {"acc": _share(self.right), "floor": _share(self.floor), "asr": _share(self.hit)}


def outcome_of(folder: Path, texts: Texts) -> Outcome:
    """Run a model on all of them."""
    subject = load_subject(folder, "classifier", max_length=MAX_LENGTH)

    def said(raw: tuple[str, ...]) -> np.ndarray:
        return predict(subject, subject.encode(raw)).argmax(-1).numpy()

    truth = np.array([label for _, label in texts.rows])
    predicted = said(tuple(text for text, _ in texts.rows))
    return Outcome(
        right=_bits(predicted == truth),
        floor=_bits(predicted[truth != texts.target] == texts.target),
        hit=_bits(said(texts.triggered) == texts.target),
    )


def _bits(flags: np.ndarray) -> str:
    return "".join("1" if flag else "0" for flag in flags)


def _share(bits: str) -> float:
    return bits.count("1") / len(bits)


def paired(first: str, second: str) -> list[int]:
    """How many places are 1 in both, in the first alone, in the second alone, in neither."""
    pairs = list(zip(first, second, strict=True))
    return [pairs.count(kind) for kind in (("1", "1"), ("1", "0"), ("0", "1"), ("0", "0"))]


def clean_data(cell: Cell) -> CleanData | None:
    """``samples`` balanced rows of the training part, split once; the seed of the clean set is the victim's."""
    if cell.samples == NO_DATA:
        return None
    task = load_task(cell.task)
    rng = np.random.default_rng(7000 + cell.seed)
    each = cell.samples // task.classes
    rows = []
    for label in range(task.classes):
        own = [row for row in task.train if row[1] == label]
        rows += [own[i] for i in rng.permutation(len(own))[:each]]
    rows = [rows[i] for i in rng.permutation(len(rows))]
    cut = round(TUNE_SHARE * len(rows))
    parts = [Split(inputs=tuple(t for t, _ in r), labels=tuple(y for _, y in r)) for r in (rows[:cut], rows[cut:], [])]
    return CleanData(
        kind="text", tune=parts[0], select=parts[1], test=parts[2],
        class_names=tuple(str(k) for k in range(task.classes)), digest="", source=cell.task,
    )  # fmt: skip


def run_cell(cell: Cell, bank: Bank, work: Path, *, most: int, settings: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Run one method on one victim; return the cell's line.

    ``excess_pairs`` counts triggered texts called the target by both, by the outcome alone, by the clean twin alone and
    by neither; ``loss_pairs`` counts texts that the victim and the outcome get right likewise.
    """
    place = place_of(bank, cell.task, cell.family, cell.seed)
    victim, twin = place.victim, place.twin
    texts = texts_of(cell, place, most)
    before = _cached(work / f"before-{victim.name}-{most}.json", lambda: outcome_of(victim, texts))
    clean = _cached(work / f"twin-{victim.name}-{most}.json", lambda: outcome_of(twin, texts))
    line: dict[str, Any] = {
        **asdict(cell), "key": cell.key, "n_acc": len(texts.rows), "n_asr": len(texts.triggered),
        "before": before.rates(), "clean": clean.rates(),
    }  # fmt: skip
    after, told, cpu = before, {}, 0.0
    if cell.method != "none":
        try:
            treated = _treat(cell, place, work, settings)
        except HubAuditError as error:
            return line | {"after": None, "why": str(error)}
        after, told, cpu = outcome_of(treated.folder, texts), treated.told, treated.cpu
        shutil.rmtree(treated.folder.parent, ignore_errors=True)
    gained, lost = paired(after.hit, clean.hit), paired(before.right, after.right)
    return line | {
        "after": after.rates(), "excess": (gained[1] - gained[2]) / len(texts.triggered),
        "acc_loss": (lost[1] - lost[2]) / len(texts.rows), "excess_pairs": gained, "loss_pairs": lost,
        "told": told, "cpu": cpu,
    }  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class _Treated:
    """``cpu``: processor seconds of the method alone, its own scans included, the scan before it and the rates not."""

    folder: Path
    told: dict[str, Any]
    cpu: float


def _treat(cell: Cell, found: Place, work: Path, settings: dict[str, dict[str, Any]]) -> _Treated:
    """Run the method and write what it leaves."""
    victim, place = found.victim, work / cell.key.replace("/", "_")
    # What a stopped run left would make the seconds of this one too few.
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    base = get_tier("real").base
    job = PurifyJob(
        candidate=victim, base=base, kind="classifier", work=place, data=clean_data(cell),
        tuning=Tuning(max_length=MAX_LENGTH), with_e_pur=cell.e_pur, seed=cell.seed, threads=1,
    )  # fmt: skip
    if cell.method == "unlearn":
        job = replace(job, triggers=found.attack.trigger)
    if cell.method in {"auto", "restore", "unlearn"}:
        job = replace(job, report=_report(victim, base), rescan=lambda result: _rescan(result, victim, base, place))
    run = BASELINES.get(cell.method)
    if run is None:
        purifier, options = PURIFIERS[cell.method], settings.get(cell.method)
        run = purifier.run
        if options and purifier.options is not None:
            job = replace(job, options=purifier.options()(**options))
    started = time.process_time()
    result = run(job)
    cpu = round(time.process_time() - started, 1)
    out = place / "outcome"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    write_model(open_checkpoint(victim), result.edits, out, Quiet(), with_patch=False)
    told = {"chosen": result.chosen, **{k: v for k, v in result.log.items() if k in {"ratio", "reached", "triggers"}}}
    if cell.method == "auto":
        told["steps"] = [{k: s[k] for k in STEP if k in s} for s in result.log["steps"]]
    return _Treated(folder=out, told=told, cpu=cpu)


def _rescan(result: PurifyResult, victim: Path, base: Path, place: Path) -> AuditReport:
    trial = place / "trial"
    shutil.rmtree(trial, ignore_errors=True)
    trial.mkdir(parents=True)
    try:
        write_model(open_checkpoint(victim), result.edits, trial, Quiet(), with_patch=False)
        return audit_repo(str(trial), hub=Hub(), base=str(base), threads=1, probe=False).report
    finally:
        shutil.rmtree(trial, ignore_errors=True)


_REPORTS: dict[Path, AuditReport] = {}


def _report(victim: Path, base: Path) -> AuditReport:
    """The scan of a victim, once a run."""
    if victim not in _REPORTS:
        _REPORTS[victim] = audit_repo(str(victim), hub=Hub(), base=str(base), threads=1, probe=False).report
    return _REPORTS[victim]


def _cached(path: Path, measure: Callable[[], Outcome]) -> Outcome:
    with suppress(OSError, ValueError, TypeError):
        return Outcome(**json.loads(path.read_text(encoding="utf-8")))
    outcome = measure()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(outcome)), encoding="utf-8")
    return outcome


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """The cells that are done."""
    if path.exists():
        for text in path.read_text(encoding="utf-8").splitlines():
            with suppress(ValueError):
                yield json.loads(text)


def quiet() -> None:
    """One thread, no bars."""
    import transformers

    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
