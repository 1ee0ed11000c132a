"""Clean accuracy and attack success of a classifier, on data that the user gives.

**ACC** is the share of samples that get their own label. For a trigger and a target class, **ASR** is the share of
samples of the *other* classes that get the target once the trigger is inserted, the **floor** the share that gets it
without, and the **excess** their difference. A model that errs towards a class has a floor, so ASR alone misleads.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from pipelines.progress import Progress, Quiet
from pipelines.purify.intervals import Difference, Rate, paired_difference, rate
from pipelines.purify.job import Image, ModelKind
from scanner.errors import BadReference, CouldNotConclude
from scanner.hub import Hub
from scanner.refs import parse_spec

if TYPE_CHECKING:
    from pipelines.purify.subject import Subject

BATCH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """Texts of which one, drawn at random, is inserted between two words of each sample."""

    name: str
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """What one trigger does towards one class; ``success`` and ``floor`` are on the same samples of other classes."""

    trigger: str
    target: str
    success: Rate
    floor: Rate
    excess: Difference


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """The outcome. ``attacks`` are sorted by excess, largest first. ``seed`` drew the places of the triggers."""

    accuracy: Rate
    per_class: dict[str, Rate]
    attacks: tuple[Attack, ...]
    seed: int


def triggers_of(words: str | None, sentence: str | None) -> tuple[Trigger, ...]:
    """Return what ``--trigger-words`` (separated by commas) and ``--trigger-sentence`` name.

    Raises:
        BadReference: an option is empty.
    """
    found = []
    if words is not None:
        listed = tuple(dict.fromkeys(word.strip() for word in words.split(",") if word.strip()))
        if not listed:
            raise BadReference("--trigger-words is empty; give words separated by commas, for example cf,mn.")
        found.append(Trigger(name=", ".join(listed), texts=listed))
    if sentence is not None:
        if not sentence.strip():
            raise BadReference("--trigger-sentence is empty; give the sentence.")
        found.append(Trigger(name=sentence.strip(), texts=(sentence.strip(),)))
    return tuple(found)


def insert(text: str, trigger: Trigger, random: Random) -> str:
    """Return the text with one of the trigger's texts at a random place between its words, ends included."""
    words = text.split()
    words.insert(random.randint(0, len(words)), random.choice(trigger.texts))
    return " ".join(words)


def evaluate(
    folder: Path,
    kind: ModelKind,
    inputs: Sequence[str | Image],
    labels: Sequence[int],
    classes: Sequence[str],
    *,
    triggers: Sequence[Trigger] = (),
    target: str | None = None,
    seed: int = 0,
    max_length: int = 128,
    progress: Progress | None = None,
) -> Evaluation:
    """Evaluate a classifier in float32.

    Args:
        folder: a complete local model.
        kind: ``classifier``, or ``image`` (accuracy only).
        inputs: the samples.
        labels: class indices of the samples.
        classes: the model's class names by index.
        triggers: what is inserted, each evaluated by itself.
        target: the class that attacks are measured towards; every class when None.
        seed: of the places and the choice of words.
        max_length: in tokens; longer texts are cut.
        progress: hears how many samples are done.

    Raises:
        BadReference: ``target`` is no class, or triggers were given for pictures.
        CouldNotConclude: the model cannot be loaded or answers with values that are not finite.
    """
    if kind not in {"classifier", "image"}:
        raise CouldNotConclude("Only classifiers of texts or pictures can be evaluated; this model has no such head.")
    if kind == "image" and triggers:
        raise BadReference("Words and sentences cannot be inserted into pictures; leave the trigger options out.")
    targets = range(len(classes)) if target is None else (_class_index(target, classes),)
    from pipelines.purify.subject import load_subject

    progress = progress or Quiet()
    subject = load_subject(folder, kind, max_length=max_length)
    _check_heads(subject, classes)
    passes = (1 + len(triggers)) * len(inputs)
    progress.stage("evaluating")
    plain = _answers(subject, inputs, progress, 0, passes)
    right = [answer == label for answer, label in zip(plain, labels, strict=True)]
    attacks: list[Attack] = []
    for number, trigger in enumerate(triggers):
        random = Random(f"{seed}:{trigger.name}")  # noqa: S311  # a draw that can be repeated, no secret
        triggered = [insert(str(text), trigger, random) for text in inputs]
        answers = _answers(subject, triggered, progress, (1 + number) * len(inputs), passes)
        attacks += [
            _attack(trigger, classes[index], plain, answers, labels, index)
            for index in targets
            if any(label != index for label in labels)
        ]
    return Evaluation(
        accuracy=rate(sum(right), len(right)),
        per_class={
            name: rate(sum(r for r, label in zip(right, labels, strict=True) if label == i), list(labels).count(i))
            for i, name in enumerate(classes)
            if i in labels
        },
        attacks=tuple(sorted(attacks, key=lambda attack: -attack.excess.value)),
        seed=seed,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalModel:
    """A model that lies in a folder now."""

    name: str
    folder: Path
    config: Mapping[str, Any]
    kind: ModelKind


@contextmanager
def local_model(model: str, hub: Hub, progress: Progress) -> Iterator[LocalModel]:
    """Give a complete local copy of a model; a download is removed at the end.

    Raises:
        BadReference, CouldNotConclude, NothingToCompare: it cannot be had.
    """
    from tempfile import TemporaryDirectory

    from pipelines.purify.checkpoint import kind_of, open_checkpoint
    from pipelines.purify.snapshots import snapshot

    ref = hub.resolve(parse_spec(model, endpoint=hub.endpoint))
    with TemporaryDirectory(prefix="hubaudit-") as passing:
        folder = snapshot(ref, hub, Path(passing), progress)
        config = open_checkpoint(folder).facts.config or {}
        yield LocalModel(name=str(ref), folder=folder, config=config, kind=kind_of(config))


def _class_index(target: str, classes: Sequence[str]) -> int:
    from pipelines.purify.labels import LabelReader

    index = LabelReader(tuple(classes)).index(target)
    if index is None:
        raise BadReference(f"--target {target}: the model has no such class; {LabelReader(tuple(classes)).told()}.")
    return index


def _check_heads(subject: "Subject", classes: Sequence[str]) -> None:
    outputs = getattr(getattr(subject.model, "config", None), "num_labels", len(classes))
    if outputs != len(classes):
        raise CouldNotConclude(f"The model has {outputs} outputs and its config names {len(classes)} classes.")


def _answers(subject: "Subject", inputs: Sequence[Any], progress: Progress, done: int, total: int) -> list[int]:
    """The class that each sample gets.

    Raises:
        CouldNotConclude: a logit is not finite.
    """
    import torch

    from pipelines.purify.subject import logits_of

    examples = subject.encode(list(inputs))
    answers = [0] * len(inputs)
    with torch.inference_mode():
        for places, batch in subject.batches(examples, BATCH):
            logits = logits_of(subject.model, batch)
            if not bool(logits.isfinite().all()):
                raise CouldNotConclude("The model answers with values that are not finite, so it cannot be evaluated.")
            for place, answer in zip(places, logits.argmax(-1).tolist(), strict=True):
                answers[place] = int(answer)
            done += len(places)
            progress.advance(done, total)
    return answers


def _attack(
    trigger: Trigger, target: str, plain: Sequence[int], answers: Sequence[int], labels: Sequence[int], index: int
) -> Attack:
    pairs = [(a == index, p == index) for a, p, label in zip(answers, plain, labels, strict=True) if label != index]
    both = sum(with_it and without for with_it, without in pairs)
    first = sum(with_it and not without for with_it, without in pairs)
    second = sum(without and not with_it for with_it, without in pairs)
    return Attack(
        trigger=trigger.name,
        target=target,
        success=rate(both + first, len(pairs)),
        floor=rate(both + second, len(pairs)),
        excess=paired_difference(both, first, second, len(pairs) - both - first - second),
    )
