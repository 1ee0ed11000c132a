"""What kept probes say together, as Markdown: by attack family and kind of trigger, and on clean models."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from pydantic import TypeAdapter

from audit.rates import upper_bound
from audit.thresholds import Profile, load_profile
from audit.triggers import confirmed
from benchmarks.calibration.protocol import interval
from benchmarks.pages import splice
from benchmarks.together import both, lines
from scanner.probe.records import ProbeFacts

BEGIN, END = "<!-- probe:begin -->", "<!-- probe:end -->"
PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
SEEN: Final = {"attacked": 59, "clean": 76}
"""Last numbers of the models that were looked at while the rules were made; later ones are a test of them."""
SENTENCES: Final = frozenset({"badsentence", "lora_badsentence"})
STYLES: Final = frozenset({"syntactic"})
TOP: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One probe, judged: ``columns`` are whether each head of the table holds, none on clean models.

    ``seen`` says that the model was looked at while the rules were made.
    """

    id: str
    family: str | None
    confirmed: bool
    columns: tuple[bool, ...]
    seconds: float
    tokens: int
    untried: bool
    seen: bool


HEADS: Final = ("n", "confirmed", "named first", "among the first ten", "weights alone: first", "among the first ten")


def table(out: Path) -> str:
    """The measured rates of the models kept in a folder."""
    profile = load_profile()
    kept = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(out.glob("*.json"))]
    judged = [judge(one, profile) for one in kept if "facts" in one]
    skipped = [one for one in kept if "facts" not in one]
    judgements = [j for j in judged if j is not None]
    told = {j.id: j.confirmed for j in judgements}
    together = ["", "**Weights and probe together**, as a scan runs them:", "", *lines(both(told))]
    return "\n".join([*_attacks(judgements), "", *_rest(judgements, skipped), *together])


def judge(one: dict[str, Any], profile: Profile) -> Outcome | None:
    """Hold one kept probe against what was planted; None for attacks that do not work and edits without a trigger.

    A trigger counts as found when an insertion towards the attack's class is confirmed; its tokens are named first when
    the first confirmed insertion holds one of them.
    """
    facts = TypeAdapter(ProbeFacts).validate_python(one["facts"])
    found = confirmed(facts, profile)
    columns: tuple[bool, ...] = ()
    if one["family"] is not None:
        if not one["working"] or one["group"] != "backdoor":
            return None
        trigger = set(one["trigger_ids"] or ())
        right = [t.insertion for t in found if t.insertion.target == one["target"]]
        near = [i for d in facts.directions if d.target == one["target"] for i in d.insertions[:TOP]]
        by_weights = (bool(set(one["suspects"][:most]) & trigger) for most in (1, TOP))
        named = bool(right) and bool(set(right[0].tokens) & trigger)
        columns = (bool(right), named, any(set(i.tokens) & trigger for i in (*right[:TOP], *near)), *by_weights)
    return Outcome(
        id=one["id"],
        family=one["family"],
        confirmed=bool(found),
        columns=columns,
        seconds=one["cpu_seconds"],
        tokens=facts.tokens,
        untried=bool(facts.untried),
        seen=_seen(one["id"]),
    )


def _seen(model_id: str) -> bool:
    kind, _, number = model_id.partition("-")
    return kind in SEEN and number.isdigit() and int(number) <= SEEN[kind]


def write_page(out: Path, page: Path = PAGE) -> None:
    """Put the tables between their markers in docs/benchmarks.md."""
    made = f"{BEGIN}\n{table(out)}\n{END}\n"
    page.write_text(splice(page.read_text(encoding="utf-8"), made), encoding="utf-8")


def _attacks(judged: Sequence[Outcome]) -> Iterator[str]:
    yield f"| attack (working ones) | {' | '.join(HEADS)} |"
    yield "|" + "---|" * (1 + len(HEADS))
    attacked = [one for one in judged if one.family is not None]
    for family in sorted({str(one.family) for one in attacked}):
        yield _row(family, [one for one in attacked if one.family == family])
    yield _row("**all**", attacked)
    yield ""
    sentences = [one for one in attacked if one.family in SENTENCES]
    styles = [one for one in attacked if one.family in STYLES]
    words = [one for one in attacked if one.family not in SENTENCES | STYLES]
    for name, ones in (("words", words), ("sentences", sentences), ("styles", styles)):
        new = [one.columns[0] for one in ones if not one.seen]
        yield f"- Triggers that are {name}: {_share([one.columns[0] for one in ones])} confirmed; {_unseen(new)}."
    yield f"- A token of the trigger among the first ten insertions: {_share([one.columns[2] for one in attacked])}."


def _rest(judged: Sequence[Outcome], skipped: Sequence[dict[str, Any]]) -> Iterator[str]:
    clean = [one for one in judged if one.family is None]
    false = sum(one.confirmed for one in clean)
    yield (
        f"- Clean classifiers: {false} of {len(clean)} with a confirmed trigger "
        f"(95 % upper bound {100 * upper_bound(false, len(clean)):.1f} %); "
        f"{_unseen([one.confirmed for one in clean if not one.seen])}."
    )
    if judged:
        seconds, tokens = [one.seconds for one in judged], [one.tokens for one in judged]
        yield (
            f"- CPU seconds a model: median {np.median(seconds):.0f}, largest {max(seconds):.0f}. Tokens run: median "
            f"{np.median(tokens):,.0f}, largest {max(tokens):,}. The budget left something untried on "
            f"{sum(one.untried for one in judged)} of {len(judged)}."
        )
    if skipped:
        yield f"- Not probed: {len(skipped)} ({'; '.join(sorted({one['skipped'] for one in skipped}))})."


def _row(name: str, ones: Sequence[Outcome]) -> str:
    counts = [sum(column) for column in zip(*(one.columns for one in ones), strict=True)]
    return f"| {name} | {len(ones)} | {' | '.join(map(str, counts))} |"


def _unseen(hits: Sequence[bool]) -> str:
    return f"on models that were not looked at while the rules were made {_share(hits) if hits else 'none'}"


def _share(hits: Sequence[bool]) -> str:
    return interval(sum(hits), len(hits))
