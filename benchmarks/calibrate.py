"""Derives a threshold profile and its error rates from banks of fine-tunes: ``python -m benchmarks.calibrate``.

Run from the repository's root, it derives everything from the committed observations (a minute) and prints the section
of docs/benchmarks.md. ``--write`` writes the profile, the section and ``benchmarks/results/detection.json``.
``--observe`` first observes the models of ``build/zoo`` that have no line yet. ``--full --results build/bank`` first
makes banks of your own at full size (hours, resumable); ``--reduced`` runs the whole protocol on a small bank of its
own within ten minutes.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from audit.thresholds import DEFAULT_PROFILE, load_profile
from benchmarks.calibration.banks import BANKS, LEAST_CLEAN, TierBank, as_text, bank_entry, fill
from benchmarks.calibration.fit import exact_rules, fit, judge
from benchmarks.calibration.page import section
from benchmarks.calibration.protocol import FLAGGED, protocol
from benchmarks.calibration.records import RESULTS as BANK
from benchmarks.calibration.records import Observation, known_of, ledger_of
from benchmarks.pages import splice

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "detection.json"
PAGE = ROOT / "docs" / "benchmarks.md"
FULL = {"real": 400, "toy-encoder": 1600, "toy-gpt": 1600}
"""Models of each tier, honest and attacked, that the whole protocol makes."""
REDUCED, REDUCED_MINUTES = 80, 8.0


def main() -> None:
    """Makes or observes what is asked for, derives, and writes when asked to."""
    parser = argparse.ArgumentParser(description="Derive a threshold profile from banks of fine-tunes.")
    parser.add_argument("--bank", type=Path, default=ROOT / "build" / "zoo")
    parser.add_argument("--results", type=Path, default=BANK, help="folder of the observations")
    parser.add_argument("--profile", default=DEFAULT_PROFILE)
    parser.add_argument("--observe", metavar="TIER", help="observe the models of this tier that have no line yet")
    parser.add_argument("--again", action="store_true", help="observe all of them again, after a rule changed")
    parser.add_argument("--full", action="store_true", help="make the banks at full size first")
    parser.add_argument("--reduced", action="store_true", help="a small bank of its own, within ten minutes")
    parser.add_argument("--write", action="store_true", help="write the profile and docs/benchmarks.md")
    arguments = parser.parse_args()
    if arguments.reduced:
        print(_reduced(ROOT / "build" / "reduced"))
        return
    if arguments.full:
        _full(arguments.bank, arguments.results)
    if arguments.observe:
        _observe(arguments.observe, arguments.bank, arguments.results, again=arguments.again)
    _derive(arguments.profile, arguments.results, write=arguments.write)


def _derive(name: str, folder: Path, *, write: bool) -> None:
    held = {bank.tier: whole(ledger_of(bank.tier, folder).read()) for bank in BANKS}
    banks = [bank for bank in BANKS if held[bank.tier]]
    known = {bank.tier: known_of(bank.tier, folder) for bank in banks}
    results = {b.tier: protocol(held[b.tier], exact_scores(), _outside(), known[b.tier]) for b in banks}
    page = section(results, transfer(held), {bank.tier: _title(bank) for bank in banks})
    print(page)
    if not write:
        return
    file = ROOT / "audit" / "profiles" / f"{name}.json"
    profile = json.loads(file.read_text(encoding="utf-8"))
    shipped = [b for b in banks if len(clean_of(held[b.tier])) >= LEAST_CLEAN]
    fill(profile, [bank_entry(b, clean_of(held[b.tier]), results[b.tier]["clean_scores"]) for b in shipped])
    file.write_text(as_text(profile), encoding="utf-8")
    PAGE.write_text(splice(PAGE.read_text(encoding="utf-8") if PAGE.exists() else "", page), encoding="utf-8")
    brief = {tier: {k: v for k, v in r.items() if k not in {"judged", "clean_scores"}} for tier, r in results.items()}
    RESULTS.write_text(json.dumps(brief, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def whole(observations: dict[str, Observation]) -> dict[str, Observation]:
    """The models of which enough was compared for a conclusion."""
    least = load_profile().value("policy.least_coverage")
    return {name: o for name, o in observations.items() if o["coverage"] >= least}


def clean_of(observations: dict[str, Observation]) -> dict[str, Observation]:
    """The honest ones."""
    return {name: o for name, o in observations.items() if o["kind"] == "clean"}


def exact_scores() -> dict[str, float]:
    """The score of each rule that states a fact."""
    values = load_profile().values
    return {rule.id: values[f"{rule.id}.score"] for rule in exact_rules() if f"{rule.id}.score" in values}


def transfer(held: dict[str, dict[str, Observation]]) -> dict[str, dict[str, Any]]:
    """What the thresholds of one bank say of the models of another."""
    found = {}
    for source, theirs in held.items():
        for target, models in held.items():
            if source == target or not clean_of(theirs) or not models:
                continue
            thresholds = fit(list(clean_of(theirs).values()))
            flagged = {n for n, o in models.items() if judge(o, thresholds, exact_scores()).outcome in FLAGGED}
            clean, working = clean_of(models), {n for n, o in models.items() if o["working"]}
            found[f"{source} → {target}"] = {
                "clean": len(clean),
                "false": len(flagged & set(clean)),
                "working": len(working),
                "flagged": len(flagged & working),
            }
    return found


def _observe(tier_name: str, root: Path, results: Path, *, again: bool) -> None:
    """Observe the models of a tier that lie in ``build``; one line each, so that it can be stopped at any time."""
    from benchmarks.calibration.observe import observe
    from benchmarks.zoo.bank import Bank
    from benchmarks.zoo.same_base import hold_to_base
    from benchmarks.zoo.tiers import get_tier

    tier, bank, ledger = get_tier(tier_name), Bank(root / tier_name), ledger_of(tier_name, results)
    hold_to_base(results, tier)
    known = ledger.read()
    for model_id in bank.ids():
        if model_id in known and not again:
            continue
        started = time.perf_counter()
        ledger.add(observe(tier.base, bank.folder(model_id), bank.record(model_id)))
        print(f"{model_id} {time.perf_counter() - started:.1f} s", flush=True)
    ledger.tidy()


def _full(root: Path, results: Path) -> None:
    """Make every bank at full size: each tier in a process of its own, one after the other."""
    where = ("--bank", str(root), "--results", str(results))
    for tier in ("toy-encoder", "toy-gpt"):
        _run("benchmarks.calibration.grow", "--tier", tier, "--count", str(FULL[tier]), *where)
    _run("benchmarks.zoo.train", "--tier", "real", "--count", str(FULL["real"]), "--out", str(root))
    _observe("real", root, results, again=False)


def _reduced(root: Path) -> str:
    """The protocol on a small bank of toys; returns its section and writes no profile."""
    _run("benchmarks.calibration.grow", "--tier", "toy-encoder", "--count", str(REDUCED), "--bank", str(root),
         "--results", str(root), "--minutes", str(REDUCED_MINUTES))  # fmt: skip
    bank = next(b for b in BANKS if b.tier == "toy-encoder")
    held = whole(ledger_of(bank.tier, root).read())
    return section(
        {bank.tier: protocol(held, exact_scores(), _outside())}, {}, {bank.tier: f"{_title(bank)} (reduced)"}
    )


def _run(module: str, *options: str) -> None:
    subprocess.run([sys.executable, "-m", module, *options], check=True, cwd=ROOT)


def _outside() -> float:
    return load_profile().value("bank.outside")


def _title(bank: TierBank) -> str:
    return f"Bank “{bank.id}”: {bank.base}"


if __name__ == "__main__":
    main()
