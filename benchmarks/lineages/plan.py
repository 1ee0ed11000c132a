"""Which models the lineage benchmark trains, and who descends from whom.

All models of one architecture have the *identical* configuration: nothing but the weights tells them apart.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Kind = Literal["llama", "gpt2"]

KINDS: tuple[Kind, ...] = ("llama", "gpt2")
SCRATCH = 40
"""Models from scratch per architecture, each with its own start; their languages repeat after ``LANGUAGES``."""
LANGUAGES = 5
FAMILIES = 4
"""Models per architecture, the first ones, that get descendants."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One training run.

    ``parent`` is the model it starts from, None for a random start drawn with ``start_seed``. ``group`` says what a
    pair with the parent stands for. ``learning_rate`` is the peak of a linear decay of AdamW.
    """

    name: str
    kind: Kind
    parent: str | None
    group: str
    start_seed: int
    language: int
    steps: int
    learning_rate: float
    weight_decay: float = 0.01


def jobs() -> Iterator[Job]:
    """Every run; parents come before their descendants."""
    for index in range(SCRATCH):
        for kind in KINDS:
            yield _scratch(kind, index)
            if index < FAMILIES:
                yield from _family(kind, index)
            elif index == FAMILIES:
                yield from _restarts(kind)


def _restarts(kind: Kind) -> Iterator[Job]:
    """The first model again, from the same random start, in other languages: neither related nor independent."""
    for language in (1, 2, 3):
        yield Job(
            name=f"{kind}-00-restart-{language}",
            kind=kind,
            parent=None,
            group="same start, other data",
            start_seed=100,
            language=language,
            steps=300,
            learning_rate=3e-3,
        )


def _scratch(kind: Kind, index: int) -> Job:
    return Job(
        name=f"{kind}-{index:02d}",
        kind=kind,
        parent=None,
        group="from scratch",
        start_seed=100 + index,
        language=index % LANGUAGES,
        steps=300,
        learning_rate=3e-3,
    )


def _family(kind: Kind, index: int) -> Iterator[Job]:
    base = f"{kind}-{index:02d}"
    runs = (
        # name, parent, group, language, steps, rate, decay
        ("tuned-a", base, "fine-tune", 10 + index, 80, 1e-4, 0.0),
        ("tuned-b", base, "fine-tune", 20 + index, 80, 3e-4, 0.01),
        ("instruct", base, "instruct", 30 + index, 160, 5e-4, 0.1),
        ("continued", base, "continued pre-training", 40 + index, 240, 1.5e-3, 0.1),
        ("instruct-tuned", f"{base}-instruct", "fine-tune", 50 + index, 80, 2e-4, 0.0),
        ("continued-instruct", f"{base}-continued", "instruct", 60 + index, 120, 5e-4, 0.1),
    )
    for name, parent, group, language, steps, rate, decay in runs:
        yield Job(
            name=f"{base}-{name}",
            kind=kind,
            parent=parent,
            group=group,
            start_seed=0,
            language=language,
            steps=steps,
            learning_rate=rate,
            weight_decay=decay,
        )
