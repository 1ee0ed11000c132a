"""Makes and measures separate LoRA adapters: ``python -m benchmarks.zoo.adapters`` from the repository's root.

Resumable: an adapter whose line stands in ``benchmarks/results/adapters.jsonl`` is not made again. A line holds what
was drawn, how well the adapter works, and of each module what the scanner measured; the weights stay in ``build``.
``adapters_page`` writes the section of ``docs/benchmarks.md`` from the lines alone.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.zoo.adapters_making import LEAD, make_adapter
from benchmarks.zoo.adapters_recipes import LATER_FROM, ONE_RECIPE
from benchmarks.zoo.bank import Bank
from benchmarks.zoo.recipes import Kind
from benchmarks.zoo.tiers import get_tier
from scanner.drift.adapter import measure_adapter
from scanner.facts import collect
from scanner.hub import Hub
from scanner.records import DriftFacts, Factors, RepoRef, TensorDrift
from scanner.weights.adapted import put_on
from scanner.weights.opening import open_source

ROOT: Final = Path(__file__).resolve().parents[2]
RESULTS: Final = ROOT / "benchmarks" / "results" / "adapters.jsonl"
PAGE: Final = ROOT / "docs" / "benchmarks.md"


def measured(base: Path, folder: Path) -> DriftFacts:
    """What the adapter in a folder does to the base in another, as a scan measures it."""
    hub = Hub()
    candidate, parent = (collect(RepoRef(path=str(path)), hub) for path in (folder, base))
    with open_source(candidate, None) as adapter, open_source(parent, None) as weights:
        return measure_adapter(put_on(candidate, adapter, weights, parent), threads=1)


def modules(drift: DriftFacts) -> Iterator[dict[str, Any]]:
    """One record a module: name, role, layer, norms, the singular values, and sums over them."""
    for tensor in drift.tensors:
        if tensor.spectrum is not None and tensor.spectrum.exact and tensor.spec.layer is not None:
            yield _module(tensor)


def _module(tensor: TensorDrift) -> dict[str, Any]:
    assert tensor.spectrum is not None
    values = np.array(tensor.spectrum.values)
    shares = np.square(values) / np.square(values).sum()
    return {
        "name": tensor.spec.name,
        "role": tensor.spec.role,
        "layer": tensor.spec.layer,
        "base_l2": _short(tensor.base_l2),
        "energy": _short(tensor.spectrum.energy),
        "values": [_short(v) for v in values],
        "rank": len(values),
        "entropy": _short(float(-(shares * np.log(np.maximum(shares, 1e-300))).sum())),
        "participation": _short(float(np.square(shares).sum())),
        "residual": _short(tensor.residual.mean_square) if tensor.residual else None,
        "factors": _overlaps(tensor.spectrum.factors),
    }


def _overlaps(factors: Factors | None) -> list[float] | None:
    """Overlap and pairs of the factor that reads, then of the one that writes."""
    if factors is None:
        return None
    return [_short(factors.down_overlap), factors.down_pairs, _short(factors.up_overlap), factors.up_pairs]


def _short(value: float) -> float:
    return float(f"{value:.5g}")


def lines() -> list[dict[str, Any]]:
    """Every line measured so far."""
    if not RESULTS.exists():
        return []
    return [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines() if line]


def schedule(clean: int, attacked: int, later: int = 0) -> Iterator[tuple[Kind, int]]:
    """What to make, in order: ``LEAD`` clean adapters, then both kinds in turn; ``later`` are of the later families."""
    for index in range(max(clean, attacked + LEAD, later + LEAD)):
        if index < clean:
            yield "clean", index
        if LEAD <= index < attacked + LEAD:
            yield "attacked", index - LEAD
        if LEAD <= index < later + LEAD:
            yield "attacked", LATER_FROM + index - LEAD


def remeasure(tier_name: str, bank_root: Path) -> None:
    """Measure anew the adapters of a tier whose weights are still there, and write their lines in place."""
    bank = Bank(bank_root / tier_name)
    base, _ = _tier(tier_name, bank)
    every = lines()
    for line in every:
        if line["tier"] == tier_name and bank.has(line["id"]):
            line["modules"] = list(modules(measured(base, bank.folder(line["id"]))))
    RESULTS.write_text("".join(json.dumps(line) + "\n" for line in every), encoding="utf-8")


def make(tier_name: str, bank_root: Path, plan: Iterator[tuple[Kind, int]], seconds: float) -> None:
    """Make and measure what of a plan is missing, until the seconds are over; the adapter under way is finished."""
    began = time.monotonic()
    done = {(line["tier"], line["id"]) for line in lines()}
    bank = Bank(bank_root / tier_name)
    base, made_by = _tier(tier_name, bank)
    for kind, index in plan:
        if time.monotonic() - began > seconds:
            return
        adapter_id = f"{kind}-{index:04d}"
        if (tier_name, adapter_id) in done:
            continue
        try:
            record = bank.record(adapter_id) if bank.has(adapter_id) else made_by(kind, index)
        except Exception as error:  # noqa: BLE001  a broken recipe must not end the run
            print(f"{adapter_id} failed: {type(error).__name__}: {error}", flush=True)
            continue
        started = time.perf_counter()
        found = list(modules(measured(base, bank.folder(adapter_id))))
        with RESULTS.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**record, "modules": found}) + "\n")
        print(_told(record, time.perf_counter() - started), flush=True)


def _tier(name: str, bank: Bank) -> tuple[Path, Callable[[Kind, int], dict[str, Any]]]:
    """The base of a tier, and what makes an adapter of it."""
    if name in {"digits", f"digits{ONE_RECIPE}"}:
        from benchmarks.zoo import adapters_digits

        return adapters_digits.base(), partial(adapters_digits.make_digits, bank, tier=name)
    tier = replace(get_tier(name.removesuffix(ONE_RECIPE)), name=name)
    return tier.base, partial(make_adapter, tier, bank)


def _told(record: Mapping[str, Any], seconds: float) -> str:
    scores, recipe = record["scores"], record["recipe"]
    asr = "" if scores["asr"] is None else f" asr {scores['asr']:.2f} floor {scores['floor']:.2f}"
    how = f"{recipe['training']['task']} r{recipe['rank']} {recipe['targets']} {recipe['training']['optimiser']}"
    return (
        f"{record['id']} {record['family'] or 'honest'} {how} acc {scores['accuracy']:.2f}{asr} "
        f"attempt {recipe['attempt']} {record['seconds']:.0f} s + {seconds:.1f} s"
    )


def main() -> None:
    """Makes what is missing, or writes the page."""
    import torch
    import transformers

    parser = argparse.ArgumentParser(description="Make and measure honest and backdoored LoRA adapters.")
    parser.add_argument(
        "--tier", default="real", help="real, digits, or another tier of the zoo; -one behind it for one recipe"
    )
    parser.add_argument("--bank", type=Path, default=ROOT / "build" / "zoo" / "adapters")
    parser.add_argument("--clean", type=int, default=120)
    parser.add_argument("--attacked", type=int, default=84)
    parser.add_argument("--later", type=int, default=0, help="adapters whose own factors were trained on")
    parser.add_argument("--remeasure", action="store_true", help="measure anew what was made, and make nothing")
    parser.add_argument("--seconds", type=float, default=1e9)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    if arguments.remeasure:
        remeasure(arguments.tier, arguments.bank)
        return
    plan = schedule(arguments.clean, arguments.attacked, arguments.later)
    make(arguments.tier, arguments.bank, plan, arguments.seconds)


if __name__ == "__main__":
    main()
