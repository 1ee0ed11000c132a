"""Makes and measures separate LoRA adapters: ``python -m benchmarks.zoo.adapters`` from the repository's root.

Resumable: an adapter whose line stands in ``benchmarks/results/adapters.jsonl`` is not made again. A line holds what
was drawn, how well the adapter works, and of each module what the scanner measured; the weights stay in ``build``.
``--page`` writes the section of ``docs/benchmarks.md`` from the lines alone.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.zoo.adapters_making import LEAD, make_adapter
from benchmarks.zoo.bank import Bank
from benchmarks.zoo.recipes import Kind
from benchmarks.zoo.tiers import get_tier
from scanner.drift.adapter import measure_adapter
from scanner.facts import collect
from scanner.hub import Hub
from scanner.records import DriftFacts, RepoRef, TensorDrift
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
    }


def _short(value: float) -> float:
    return float(f"{value:.5g}")


def lines() -> list[dict[str, Any]]:
    """Every line measured so far."""
    if not RESULTS.exists():
        return []
    return [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines() if line]


def schedule(clean: int, attacked: int) -> Iterator[tuple[Kind, int]]:
    """What to make, in order: ``LEAD`` clean adapters, then both kinds in turn."""
    for index in range(max(clean, attacked + LEAD)):
        if index < clean:
            yield "clean", index
        if LEAD <= index < attacked + LEAD:
            yield "attacked", index - LEAD


def make(tier_name: str, bank_root: Path, clean: int, attacked: int, seconds: float) -> None:
    """Make and measure what is missing, until the seconds are over; the adapter under way is finished."""
    began = time.monotonic()
    done = {(line["tier"], line["id"]) for line in lines()}
    bank = Bank(bank_root / tier_name)
    base, made_by = _tier(tier_name, bank)
    for kind, index in schedule(clean, attacked):
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
    if name == "digits":
        from benchmarks.zoo import adapters_digits

        return adapters_digits.base(), partial(adapters_digits.make_digits, bank)
    tier = get_tier(name)
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
    parser.add_argument("--tier", default="real", help="real, digits, or another tier of the zoo")
    parser.add_argument("--bank", type=Path, default=ROOT / "build" / "zoo" / "adapters")
    parser.add_argument("--clean", type=int, default=120)
    parser.add_argument("--attacked", type=int, default=84)
    parser.add_argument("--seconds", type=float, default=1e9)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    make(arguments.tier, arguments.bank, arguments.clean, arguments.attacked, arguments.seconds)


if __name__ == "__main__":
    main()
