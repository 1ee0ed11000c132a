"""What the rules measure on one model of the bank, before any threshold."""

import dataclasses
from pathlib import Path
from typing import Any

from audit.evidence import Evidence, Hit
from audit.rulebook import DETECTORS
from audit.run import run_detectors
from audit.thresholds import Profile, load_profile
from benchmarks.zoo.measure import measure_folders
from scanner.facts import collect
from scanner.hub import Hub
from scanner.records import Lineage, RepoRef
from scanner.tokens import read_tokens

Observation = dict[str, Any]

_NEVER, _ALWAYS = 1e300, -1e300


def open_thresholds(profile: Profile) -> Profile:
    """The profile with every statistical threshold opened, so that each rule tells its largest value and its place."""
    opened = {".review": _ALWAYS, ".fail": _NEVER}
    values = {
        name: next((v for suffix, v in opened.items() if name.endswith(suffix)), value)
        for name, value in profile.values.items()
    }
    return dataclasses.replace(profile, values={**values, "findings.most": 3})


def observe(base: Path, folder: Path, record: dict[str, Any]) -> Observation:
    """Measure one model against the base and run every detector with open thresholds.

    ``values`` is each statistical rule's largest value, ``places`` the tensors and rows it lies in (largest first);
    ``exact`` names the rules that state facts, with their places under ``places`` as well.
    """
    facts, hub = collect(RepoRef(path=str(folder)), Hub()), Hub()
    parent = collect(RepoRef(path=str(base)), hub)
    drift = measure_folders(base, folder)
    evidence = Evidence(
        candidate=facts,
        base=parent,
        lineage=Lineage(candidate=facts.ref, base=parent.ref, relation="finetune", status="verified"),
        drift=drift,
        tokens=read_tokens(facts, hub),
        profile=open_thresholds(load_profile()),
    )
    judged = run_detectors(evidence, [d for d in DETECTORS if d.needs_drift])
    weighs = {rule.id for detector in DETECTORS for rule in detector.rules if rule.weighs}
    hits = [hit for hit in judged.hits if hit.rule_id in weighs and (hit.value is not None or hit.score > 0)]
    return {
        "kind": record["recipe"]["kind"],
        "family": record["family"],
        "working": record["working"],
        "recipe": _recipe(record),
        "truth": {
            "tensors": record["truth"]["tensors"],
            "rows": sorted({*record["truth"].get("trigger_ids", ()), *_rows(record["truth"]["rows"])}),
        },
        "coverage": round(drift.coverage.fraction, 4),
        "broken": list(judged.broken),
        "values": _values(hits),
        "exact": sorted({hit.rule_id for hit in hits if hit.value is None}),
        "places": _places(hits),
    }


def _recipe(record: dict[str, Any]) -> dict[str, Any]:
    """What a table of error rates is broken down by."""
    training = record["recipe"]["training"]
    if training is None:
        return {"method": f"merge ({record['recipe']['merge']['form']})" if record["recipe"]["merge"] else "edit"}
    return {name: training[name] for name in ("task", "objective", "method", "optimiser", "lr", "round_trip")}


def _rows(rows: dict[str, list[int]]) -> set[int]:
    return {row for listed in rows.values() for row in listed}


def _values(hits: list[Hit]) -> dict[str, float]:
    values: dict[str, float] = {}
    for hit in hits:
        if hit.value is not None:
            values[hit.rule_id] = round(max(hit.value, values.get(hit.rule_id, hit.value)), 4)
    return values


def _places(hits: list[Hit]) -> dict[str, list[dict[str, Any]]]:
    places: dict[str, list[dict[str, Any]]] = {}
    for hit in hits:
        if hit.finding is not None:
            places.setdefault(hit.rule_id, []).extend(
                {"tensor": place.tensor, "rows": [rows[0] for rows in place.rows[:20]]}
                for place in hit.finding.locations
            )
    return places
