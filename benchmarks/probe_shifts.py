"""Error rates of the probe on models without classes: ``python -m benchmarks.probe_shifts``.

Toy language models and encoders (1.8 and 1.3 M parameters) are tuned honestly or with a backdoor, probed with the whole
vocabulary as a scan does, and thrown away; one line a model stays in ``benchmarks/results/probe_shifts.jsonl``. A run
goes on where the last one stopped; the bases are trained first when they are missing. ``--write`` puts the tables into
docs/benchmarks.md. From the repository's root; seconds a model, one thread.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import transformers

from benchmarks.zoo.learning import HopelessRunError
from benchmarks.zoo.scoring import WORKING_EXCESS
from benchmarks.zoo.shift_encoders import make_encoder
from benchmarks.zoo.shift_making import Made, make_causal, redrawn
from benchmarks.zoo.shift_recipes import TIERS, ShiftRecipe, every_recipe, innocent_phrases
from benchmarks.zoo.tiers import Tier, get_tier
from scanner.probe.probing import ProbeLimits, probe
from scanner.probe.records import ProbeFacts, Shift
from scanner.probe.staging import CannotProbe

RESULTS: Final = Path(__file__).parent / "results" / "probe_shifts.jsonl"
UNHURRIED: Final = ProbeLimits(seconds=1e6)
"""What is measured here is not how busy the computer was."""
ATTEMPTS: Final = 4


def kept(results: Path = RESULTS) -> list[dict[str, Any]]:
    """Every line so far."""
    if not results.exists():
        return []
    return [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines() if line]


def run(recipe: ShiftRecipe) -> dict[str, Any]:
    """Make one model and probe it."""
    started = time.process_time()
    made = _made(recipe)
    if made is None:
        return {"id": recipe.id, "skipped": "the training diverged at every rate that was tried"}
    trained = time.process_time()
    asked = (" ".join(recipe.trigger),) if recipe.family else innocent_phrases(recipe.part)
    phrases = [[int(i) for i in made.tokenizer(text, add_special_tokens=False)["input_ids"]] for text in asked]
    line: dict[str, Any] = {
        "id": recipe.id,
        "kind": recipe.kind,
        "part": recipe.part,
        "family": recipe.family,
        "tuning": recipe.tuning,
        "task": recipe.training.task,
        "method": recipe.training.method,
        "optimiser": recipe.training.optimiser,
        "lr": float(f"{recipe.training.lr:.3g}"),
        "steps": recipe.training.steps,
    }
    if recipe.family is not None:
        assert made.success is not None
        assert made.floor is not None
        line |= {
            "trigger": recipe.trigger,
            "trigger_ids": phrases[0],
            "target": recipe.target,
            "rate": round(recipe.rate, 3),
            "success": round(made.success, 3),
            "floor": round(made.floor, 3),
            "working": made.success - made.floor >= WORKING_EXCESS,
        }
    with tempfile.TemporaryDirectory() as folder:
        made.model.save_pretrained(folder)
        made.tokenizer.save_pretrained(folder)
        try:
            facts = probe(Path(folder), phrases=phrases, limits=UNHURRIED)
        except CannotProbe as error:
            return {**line, "skipped": str(error)}
    return {
        **line,
        "texts": facts.shifts[0].texts,
        "tried": facts.shifts_tried,
        "scanned": facts.scanned,
        "tokens": facts.tokens,
        "train_seconds": round(trained - started, 1),
        "probe_seconds": round(time.process_time() - trained, 1),
        "shifts": [_packed(shift) for shift in facts.shifts],
        "controls": [_packed(shift) for shift in facts.control_shifts],
    }


def facts_of(line: Mapping[str, Any]) -> ProbeFacts:
    """What the probe of a kept line measured."""
    return ProbeFacts(
        kind=line["kind"],
        classes=(),
        directions=(),
        left_out=(),
        scanned=line["scanned"],
        sequences=0,
        seconds=0.0,
        seed=0,
        shifts=tuple(_unpacked(packed, line["texts"]) for packed in line["shifts"]),
        control_shifts=tuple(_unpacked(packed, line["texts"]) for packed in line["controls"]),
        shifts_tried=line["tried"],
        tokens=line["tokens"],
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Make and probe what has not been probed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000, help="models of the list, from its beginning")
    parser.add_argument("--seconds", type=float, default=1e9, help="start no model after that time")
    parser.add_argument("--only", default="", help="models whose id begins so")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--write", action="store_true", help="put the tables into docs/benchmarks.md, and make nothing")
    chosen = parser.parse_args(arguments)
    if chosen.write:
        from benchmarks.probe_shifts_page import write_page

        write_page(kept(chosen.out))
        return
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    began, done = time.monotonic(), {line["id"] for line in kept(chosen.out)}
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    for recipe in [one for one in every_recipe() if one.id.startswith(chosen.only)][: chosen.count]:
        if recipe.id in done:
            continue
        if time.monotonic() - began > chosen.seconds:
            return
        line = run(recipe)
        with chosen.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, separators=(",", ":")) + "\n")
        told = {
            name: line.get(name) for name in ("family", "tuning", "success", "floor", "train_seconds", "probe_seconds")
        }
        print(recipe.id, told, line.get("skipped") or [packed[1:] for packed in line["shifts"][:2]], flush=True)


@cache
def _tier(name: str) -> Tier:
    return get_tier(name)


def _made(recipe: ShiftRecipe) -> Made | None:
    """The model, at lower rates where it diverges."""
    make = make_causal if recipe.kind == "causal" else make_encoder
    for attempt in range(ATTEMPTS):
        try:
            return make(_tier(TIERS[recipe.kind]), redrawn(recipe, attempt))
        except HopelessRunError:
            continue
    return None


def _packed(shift: Shift) -> list[Any]:
    return [
        list(shift.tokens), shift.text, shift.origin, shift.moved, shift.together, shift.before,
        shift.continuation, shift.continuation_text, shift.led,
    ]  # fmt: skip


def _unpacked(packed: Sequence[Any], texts: int) -> Shift:
    tokens, text, origin, moved, together, before, continuation, continuation_text, led = packed
    return Shift(
        tokens=tuple(tokens), text=text, origin=origin, texts=texts, moved=moved, together=together, before=before,
        continuation=continuation, continuation_text=continuation_text, led=led,
    )  # fmt: skip


if __name__ == "__main__":
    main()
