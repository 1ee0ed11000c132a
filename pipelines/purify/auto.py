"""Auto: the least change that passes, led by what the scan and the probe themselves found.

Step by step, each on what the one before left, and no step that is not called for:

1. ``restore`` what the report proves (edited rows, an edited low-rank component).
2. Probe the model; ``unlearn`` every trigger that the probe confirms and probe
   again with what was found, at most ``ROUNDS`` times: what unlearning leaves over is found and unlearnt in turn.
   Tokens whose rows were put back are tried by name: where the row was the trace of a poisoned training and not its
   carrier, they decide as before, and are unlearnt. What a person named is unlearnt too, unless putting back ended it.
   This is done without the clean samples first, and with them where that costs more accuracy on the *select* split than
   is allowed: a few dozen texts bend a model more than they teach it (of seven victims, five kept a lower success
   rate without, at the same accuracy; ``docs/benchmarks.md``).
3. When a scan of the outcome still fails: ``fine-purifying`` with clean samples (its ratio chosen on the *select*
   split), ``e-pur`` without. Either is taken back when a trigger that was unlearnt works again: the base's row of a
   trigger word may be the very row that a poisoned training learnt to answer to.

A model in which nothing is found is not touched. This is the one purifier that composes others; it finds them in the
catalogue and imports none. Intermediate models lie in the job's work folder, so an interrupted run goes on.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pipelines.progress import Quiet
from pipelines.purify.checkpoint import Checkpoint, open_checkpoint
from pipelines.purify.job import PurifyFailed, PurifyJob, PurifyResult, Rescan
from pipelines.purify.stacked import stacked
from scanner.errors import CouldNotConclude, NothingToCompare
from scanner.records import Rows

if TYPE_CHECKING:
    from torch import Tensor

    from pipelines.purify.job import Purifier

ROUNDS: Final = 3
"""Times that a trigger is unlearnt and looked for again."""
_DONE = "auto.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoOptions:
    """``probe``: run the model to find triggers. ``last_resort``: take step 3 when a scan of the outcome fails."""

    probe: bool = True
    last_resort: bool = True


@dataclass(frozen=True, slots=True)
class FolderEdits:
    """Edits whose outcome lies in a folder: read panel by panel, so that memory stays flat."""

    checkpoint: Checkpoint
    tensors: frozenset[str]

    @property
    def names(self) -> frozenset[str]:
        """What any step changed."""
        return self.tensors

    def panel(self, name: str, rows: Rows, stored: "Tensor") -> "Tensor":
        """Return the rows as they lie in the folder."""
        return self.checkpoint.rows(name, rows).reshape(stored.shape)


class _Walk:
    """The model on its way: where its present state lies, what was changed so far and what was done."""

    def __init__(self, job: PurifyJob) -> None:
        self.job = job
        self.folder = job.candidate
        self.changed: frozenset[str] = frozenset()
        self.steps: list[dict[str, Any]] = []
        self.said: list[str] = []

    def take(self, method: str, **changes: Any) -> bool:
        """Run a method of the catalogue on the present state; False when it finds nothing it could do."""
        from pipelines.purify.catalogue import PURIFIERS

        purifier: Purifier = PURIFIERS[method]
        number = len(self.steps) + 1
        place = self.job.work / f"auto-{number}-{method}"
        done = _read(place)
        if done is None:
            work = self.job.work / f"auto-{number}-work"
            work.mkdir(parents=True, exist_ok=True)
            job = replace(self.job, candidate=self.folder, work=work, options=None, rescan=self._rescan(), **changes)
            try:
                result = purifier.run(job)
            except (NothingToCompare, PurifyFailed, CouldNotConclude) as error:
                self.steps.append({"method": method, "done": False, "why": str(error)})
                return False
            done = _write(place, self.folder, result)
            shutil.rmtree(work, ignore_errors=True)
        self.folder = place
        self.changed |= frozenset(done["names"])
        self.steps.append({"method": method, "done": True, "chosen": done["chosen"], **done["log"]})
        self.said.append(done["chosen"])
        return True

    def state(self) -> tuple[Path, frozenset[str], tuple[str, ...]]:
        """Where the walk stands, for ``take_back``."""
        return self.folder, self.changed, tuple(self.said)

    def take_back(self, state: tuple[Path, frozenset[str], tuple[str, ...]], why: str) -> None:
        """Stand again where the walk stood; the last step stays in the log, with the reason."""
        self.folder, self.changed, said = state
        self.said = list(said)
        self.steps[-1] |= {"done": False, "why": why}

    def _rescan(self) -> Rescan | None:
        """A step's result is about where the walk stands; a scan wants it as one about the original candidate."""
        scan, here = self.job.rescan, self.outcome()
        return None if scan is None else lambda result: scan(stacked(here, result))

    def outcome(self) -> PurifyResult:
        """Everything so far as one result on the original candidate."""
        chosen = " ".join(self.said) or "Nothing was found that calls for a change."
        edits = FolderEdits(open_checkpoint(self.folder), self.changed)
        return PurifyResult(edits=edits, chosen=chosen, log={"steps": self.steps, "seed": self.job.seed})


def purify(job: PurifyJob) -> PurifyResult:
    """Repair what was found, step by step.

    Raises:
        PurifyFailed: the job has no report, and nothing can be found without one.
    """
    options = job.options if isinstance(job.options, AutoOptions) else AutoOptions()
    if job.report is None and not job.triggers:
        raise PurifyFailed("Auto needs a scan of the model; give one with --report, or the base with --base.")
    walk = _Walk(job)
    named = job.triggers
    flagged: dict[str, tuple[int, ...]] = {}
    if job.report is not None and job.base is not None and job.report.findings and walk.take("restore"):
        named, flagged = _after_restoring(walk)
    search = _searcher(job) if options.probe and job.kind == "classifier" else None
    known = _unlearn_what_is_found(walk, search, named, flagged) if job.kind == "classifier" else {}
    if options.last_resort and _still_fails(walk):
        state = walk.state()
        method = "fine-purifying" if job.data is not None else "e-pur"
        if method == "fine-purifying" or job.kind != "image":
            taken = walk.take(method, triggers=())
            if taken and known and search is not None and search(walk.folder, tuple(known.values()), False):
                walk.take_back(state, "A trigger that was unlearnt works again after it.")
    return walk.outcome()


def _after_restoring(walk: _Walk) -> tuple[tuple[str, ...], dict[str, tuple[int, ...]]]:
    """What still decides although the scan's findings were put back: of the named texts, and of the rows' tokens."""
    job = walk.job
    if job.kind != "classifier":
        return job.triggers, {}
    from audit.thresholds import load_profile
    from pipelines.purify.deciding import deciding

    profile = load_profile()
    tokens = [token for tensor in walk.steps[-1]["restored"] for token in tensor.get("tokens", ())]
    # A piece within a word cannot be written by itself.
    rows = {token["text"]: (int(token["id"]),) for token in tokens if not token["text"].startswith("##")}
    named = deciding(job, walk.folder, job.triggers, least=profile.value("HA001.runner_up"))
    flagged = deciding(job, walk.folder, tuple(rows), least=profile.value("HA001.rate"))
    walk.steps[-1] |= {"still_decide": [*named, *flagged]}
    return named, {text: rows[text] for text in flagged}


def _unlearn_what_is_found(
    walk: _Walk, search: "Searcher | None", named: tuple[str, ...], flagged: dict[str, tuple[int, ...]]
) -> dict[str, tuple[int, ...]]:
    """Unlearn what is named, flagged or confirmed, and look again; return all but the named, text → token ids."""
    known = dict(flagged)
    for number in range(ROUNDS):
        fresh = search(walk.folder, tuple(known.values()), number == 0) if search is not None else {}
        if number and not fresh:
            break
        known |= fresh
        triggers = tuple(dict.fromkeys((*named, *known)))
        if not triggers:
            walk.steps.append({"method": "probe", "done": True, "confirmed": []})
            break
        seed = walk.job.seed + 1000 * number
        if not _unlearn(walk, triggers, seed) or search is None:
            break
    return known


def _unlearn(walk: _Walk, triggers: tuple[str, ...], seed: int) -> bool:
    """Unlearn without clean samples; with them where that costs too much accuracy. False when nothing was done."""
    state, before = walk.state(), _accuracy(walk)
    taken = walk.take("unlearn", triggers=triggers, seed=seed, data=None)
    if before is None:
        return taken
    if taken:
        after = _accuracy(walk) or 0.0
        walk.steps[-1] |= {"accuracy_before": before, "accuracy_after": after}
        if after >= before - walk.job.tuning.max_accuracy_loss:
            return True
        walk.take_back(state, "It costs more accuracy than is allowed; the clean samples are used.")
    return walk.take("unlearn", triggers=triggers, seed=seed)


def _accuracy(walk: _Walk) -> float | None:
    """Of the present state on the *select* split, in [0, 1]; None without clean samples."""
    if walk.job.data is None:
        return None
    from pipelines.purify.searching import encoded
    from pipelines.purify.subject import load_subject, score

    subject = load_subject(walk.folder, "classifier", max_length=walk.job.tuning.max_length)
    return score(subject, encoded(subject, walk.job.data.select))


Searcher = Callable[[Path, Sequence[tuple[int, ...]], bool], dict[str, tuple[int, ...]]]


def _searcher(job: PurifyJob) -> Searcher:
    """Return a function (folder, phrases known, whole vocabulary?) → confirmed triggers, text → token ids."""
    from audit.thresholds import load_profile
    from audit.triggers import confirmed
    from pipelines.local_pair import pointers
    from scanner.probe.probing import probe
    from scanner.probe.staging import CannotProbe

    pointed = pointers(job.candidate, job.base)
    findings = job.report.findings if job.report is not None else ()
    named = [token.id for f in findings for place in f.locations for token in place.tokens]
    suspects = dict.fromkeys([*named, *pointed.suspects])

    def search(folder: Path, phrases: Sequence[tuple[int, ...]], whole: bool) -> dict[str, tuple[int, ...]]:
        job.progress.stage("probing for triggers")
        # After the first look, the words of every known phrase are tried alone as well.
        asked = dict.fromkeys([*(t for phrase in phrases for t in phrase), *suspects])
        kept = job.work / f"auto-probe-{folder.name}.json" if folder != job.candidate else job.work / "auto-probe.json"
        if kept.exists():
            found: dict[str, list[int]] = json.loads(kept.read_text(encoding="utf-8"))
            return {text: tuple(tokens) for text, tokens in found.items()}
        try:
            facts = probe(
                folder,
                suspects=list(asked),
                phrases=phrases,
                whole_vocabulary=whole,
                base=pointed.meant,
                seed=job.seed,
                threads=job.threads or 1,
            )
        except CannotProbe:
            return {}
        found = {each.insertion.text: list(each.insertion.tokens) for each in confirmed(facts, load_profile())}
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(found), encoding="utf-8")
        return {text: tuple(tokens) for text, tokens in found.items()}

    return search


def _still_fails(walk: _Walk) -> bool:
    """Whether a scan of the present state says fail; false when there is no way to scan it."""
    if walk.job.rescan is None or walk.job.report is None:
        return False
    if not walk.changed:
        return walk.job.report.verdict.outcome == "fail"
    return walk.job.rescan(walk.outcome()).verdict.outcome == "fail"


def _write(place: Path, source: Path, result: PurifyResult) -> dict[str, Any]:
    """Put the outcome of a step beside a note of what it was; complete or absent."""
    from pipelines.purify.writer import write_model

    partial = place.with_name(f".{place.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    write_model(open_checkpoint(source), result.edits, partial, Quiet(), with_patch=False)
    done = {"names": sorted(result.edits.names), "chosen": result.chosen, "log": dict(result.log)}
    (partial / _DONE).write_text(json.dumps(done), encoding="utf-8")
    shutil.rmtree(place, ignore_errors=True)
    partial.rename(place)
    return done


def _read(place: Path) -> dict[str, Any] | None:
    try:
        done: dict[str, Any] = json.loads((place / _DONE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return done
