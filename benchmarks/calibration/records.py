"""What was observed of every model of a bank: one line of JSON a model, a file a tier, committed."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[1] / "results" / "bank"

Observation = dict[str, Any]
"""See ``benchmarks.calibration.observe.observe``."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """The observations of one tier in the file ``path``; a model that was observed again counts as last written."""

    path: Path

    def read(self) -> dict[str, Observation]:
        """Every observation by id, sorted; a line that was cut short by an interruption is not one."""
        held = {observation["id"]: observation for observation in self._lines()}
        return {name: held[name] for name in sorted(held)}

    def add(self, observation: Observation) -> None:
        """Append one observation."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b") as file:
            torn = file.tell() > 0 and self.path.read_bytes()[-1:] != b"\n"
            file.write(b"\n" * torn + json.dumps(observation, separators=(",", ":")).encode() + b"\n")

    def tidy(self) -> None:
        """Rewrite the file sorted, each model once."""
        lines = [json.dumps(o, separators=(",", ":")) + "\n" for o in self.read().values()]
        part = self.path.with_suffix(".part")
        part.write_text("".join(lines), encoding="utf-8")
        part.replace(self.path)

    def _lines(self) -> Iterator[Observation]:
        if not self.path.exists():
            return
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                continue


def ledger_of(tier: str, results: Path = RESULTS) -> Ledger:
    """The committed ledger of a tier."""
    return Ledger(results / f"{tier}.jsonl")


def known_of(tier: str, results: Path = RESULTS) -> frozenset[str]:
    """The models of a tier that were known when the rules and what sets their thresholds were last changed."""
    file = results / "known.json"
    return frozenset(json.loads(file.read_text(encoding="utf-8")).get(tier, ())) if file.exists() else frozenset()
