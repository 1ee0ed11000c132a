"""Real PEFT adapters that were trained for a few steps, copies with changed factors, and the evidence of a scan."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import evidence_for
import pefts
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from audit.evidence import Evidence
from scanner.drift.adapter import measure_adapter
from scanner.facts import collect
from scanner.hub import Hub
from scanner.records import RepoRef
from scanner.weights.adapted import put_on
from scanner.weights.opening import open_source

WEIGHTS = "adapter_model.safetensors"
Change = Callable[[dict[str, torch.Tensor]], None]


def train(root: Path, config: LoraConfig, *, layers: int, steps: int, batch: int = 16, length: int = 10) -> Path:
    """Write ``base`` and ``honest`` below root: an adapter that learnt the next token of ids that follow each other."""
    pefts.save_base(pefts.llama(layers=layers), root / "base")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with pefts.quiet():
            model = get_peft_model(pefts.llama(layers=layers), config)
            torch.manual_seed(2)
            optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-3)
            model.train()
            for _ in range(steps):
                ids = torch.randint(5, 250, (batch, 1)) + torch.arange(length) * torch.randint(1, 5, (batch, 1))
                model(input_ids=ids, labels=ids).loss.backward()
                optimiser.step()
                optimiser.zero_grad()
            model.save_pretrained(root / "honest")
    finally:
        torch.set_num_threads(threads)
    return root


def evidence_of(home: Path, name: str, **config: Any) -> Evidence:
    """The evidence that a scan of an adapter of that folder has, some values of its configuration replaced."""
    candidate, base = (collect(RepoRef(path=str(home / folder)), Hub()) for folder in (name, "base"))
    with open_source(candidate, None) as adapter, open_source(base, None) as source:
        drift = measure_adapter(put_on(candidate, adapter, source, base))
    assert candidate.adapter_config is not None
    candidate = dataclasses.replace(candidate, adapter_config={**candidate.adapter_config, **config})
    return evidence_for.evidence(drift, candidate=candidate, base=base, relation="adapter")


def changed(home: Path, name: str, change: Change, **config: Any) -> Evidence:
    """The evidence of a copy of the honest adapter after a change of its factors, or of its configuration."""
    folder = home / name
    folder.mkdir(exist_ok=True)
    for file in (home / "honest").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    weights = load_file(folder / WEIGHTS)
    change(weights)
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    return evidence_of(home, name, **config)
