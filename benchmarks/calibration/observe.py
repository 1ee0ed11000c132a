"""What the rules measure on one model of the bank, before any threshold."""

import dataclasses
from pathlib import Path
from typing import Any

from audit.evidence import Evidence, Hit
from audit.rulebook import DETECTORS
from audit.run import run_detectors
from audit.thresholds import Profile, load_profile
from audit.traits import traits_of
from benchmarks.calibration.theory import theory_rejections
from benchmarks.zoo.making import can_be_parent
from benchmarks.zoo.measure import measure_folders
from scanner.facts import collect
from scanner.hub import Hub
from scanner.records import DriftFacts, Lineage, RepoRef
from scanner.tokens import read_tokens

Observation = dict[str, Any]

_MOST_ROWS = 10
_NEVER, _ALWAYS = 1e300, -1e300


def open_thresholds(profile: Profile) -> Profile:
    """The profile with every statistical threshold opened, so that each rule tells its largest value and its place."""
    opened = {".review": _ALWAYS, ".fail": _NEVER}
    values = {
        name: next((v for suffix, v in opened.items() if name.endswith(suffix)), value)
        for name, value in profile.values.items()
    }
    return dataclasses.replace(profile, values={**values, "findings.most": 1})


def evidence_of(base: Path, folder: Path, drift: DriftFacts, profile: Profile) -> Evidence:
    """What a scan of a folder knows, its base taken for verified."""
    hub = Hub()
    facts, parent = (collect(RepoRef(path=str(each)), hub) for each in (folder, base))
    return Evidence(
        candidate=facts,
        base=parent,
        lineage=Lineage(candidate=facts.ref, base=parent.ref, relation="finetune", status="verified"),
        drift=drift,
        tokens=read_tokens(facts, hub),
        profile=profile,
    )


def observe(base: Path, folder: Path, record: dict[str, Any]) -> Observation:
    """Measure one model against the base and run every detector with open thresholds.

    ``values`` is each statistical rule's largest value; ``exact`` names the rules that state facts; ``places`` gives,
    of an attacked model, the tensor and the rows that each rule names first. ``traits`` are those of ``audit.traits``
    (None when it cannot be described), ``theory`` the rejections of ``theory_rejections``.
    """
    drift = measure_folders(base, folder)
    evidence = evidence_of(base, folder, drift, open_thresholds(load_profile()))
    judged = run_detectors(evidence, [d for d in DETECTORS if d.needs_drift])
    weighs = {rule.id for detector in DETECTORS for rule in detector.rules if rule.weighs}
    hits = [hit for hit in judged.hits if hit.rule_id in weighs and (hit.value is not None or hit.score > 0)]
    traits = traits_of(drift)
    return {
        "id": record["id"],
        **{name: record[name] for name in ("family", "group", "useful", "working")},
        "kind": record["recipe"]["kind"],
        "parent": record["recipe"]["kind"] == "clean" and can_be_parent(record),
        "scores": {name: record["scores"][name] for name in ("accuracy", "asr", "floor")},
        "recipe": _recipe(record["recipe"]),
        "truth": {
            "tensors": record["truth"]["tensors"],
            "rows": sorted({*record["truth"].get("trigger_ids", ()), *_rows(record["truth"]["rows"])})[:_MOST_ROWS],
        },
        "coverage": round(drift.coverage.fraction, 4),
        "broken": list(judged.broken),
        "values": _values(hits),
        "exact": sorted({hit.rule_id for hit in hits if hit.value is None}),
        "places": _places(hits) if record["family"] else {},
        "traits": None if traits is None else [round(x, 4) for x in traits.tolist()],
        "theory": theory_rejections(drift),
    }


def _recipe(recipe: dict[str, Any]) -> dict[str, Any]:
    """What tables of error rates are broken down by, and what is needed to tell models of one origin."""
    training, merge, attack = recipe["training"], recipe["merge"], recipe["attack"]
    named = ("task", "objective", "method", "optimiser", "lr", "round_trip", "saved_dtype", "lora_rank", "steps")
    told = {name: training[name] for name in named} | {"parents": list(recipe["parents"])}
    if merge:
        told["merge"] = merge["form"]
    if attack:
        told["attack"] = {name: attack[name] for name in ("strength", "cap", "rate", "cover", "clean_steps")}
    return told


def _rows(rows: dict[str, list[int]]) -> set[int]:
    return {row for listed in rows.values() for row in listed}


def _values(hits: list[Hit]) -> dict[str, float]:
    values: dict[str, float] = {}
    for hit in hits:
        if hit.value is not None:
            values[hit.rule_id] = round(max(hit.value, values.get(hit.rule_id, hit.value)), 4)
    return values


def _places(hits: list[Hit]) -> dict[str, dict[str, Any]]:
    """Where each rule looks first: of a statistic where it is largest, of a fact the first place told."""
    places: dict[str, dict[str, Any]] = {}
    for hit in sorted(hits, key=lambda hit: -hit.score):
        if hit.finding is not None and hit.finding.locations and hit.rule_id not in places:
            place = hit.finding.locations[0]
            places[hit.rule_id] = {"tensor": place.tensor, "rows": [rows[0] for rows in place.rows[:_MOST_ROWS]]}
    return places
