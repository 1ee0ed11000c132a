"""Observations of made-up models, for the protocol of calibration."""

from typing import Any

import numpy as np

from audit.traits import TRAITS
from benchmarks.calibration.fit import FLOORS

METHODS, OPTIMISERS, TASKS = ("full", "lora", "layerwise"), ("adamw", "sgd"), ("sst2", "agnews")


def observation(value: float | None = 0.1, *, exact: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    """One model on which every rule measured that value."""
    return {
        "id": "clean-0000",
        "kind": "clean",
        "family": None,
        "group": None,
        "useful": True,
        "working": None,
        "parent": False,
        "recipe": {"method": "full", "optimiser": "adamw", "task": "sst2", "objective": "classify", "parents": []},
        "truth": {"tensors": [], "rows": []},
        "coverage": 1.0,
        "broken": [],
        "values": {} if value is None else dict.fromkeys(FLOORS, value),
        "exact": list(exact),
        "places": {},
        "traits": [0.0] * len(TRAITS),
        "theory": {"spike": 1.0, "rows": 0.5},
        **more,
    }


def bank(count: int = 40, *, seed: int = 0) -> dict[str, dict[str, Any]]:
    """Clean models with exponential values, of all recipes in turn."""
    rng = np.random.default_rng(seed)
    models = {}
    for i, value in enumerate(rng.exponential(0.2, count).tolist()):
        recipe = {
            "method": METHODS[i % len(METHODS)],
            "optimiser": OPTIMISERS[i % len(OPTIMISERS)],
            "task": TASKS[i // 3 % len(TASKS)],
            "objective": "classify",
            "parents": [],
        }
        traits = rng.normal(size=len(TRAITS)).round(3).tolist()
        models[f"clean-{i:04d}"] = observation(value, id=f"clean-{i:04d}", recipe=recipe, traits=traits)
    return models


def attacks(count: int = 12, *, value: float = 4.0, working: bool = True) -> dict[str, dict[str, Any]]:
    """Attacked models, edits of the first clean ones and words trained in, in turn."""
    models = {}
    for i in range(count):
        name, edit = f"attacked-{i:04d}", i % 2 == 0
        models[name] = observation(
            value if edit else 0.1,
            id=name,
            kind="attacked",
            family="rank_one" if edit else "badword",
            working=working,
            recipe={**bank()["clean-0000"]["recipe"], "parents": [f"clean-{i:04d}"] if edit else []},
            truth={"tensors": ["t"] if edit else [], "rows": [] if edit else [5, 6]},
            places={"HA301": {"tensor": "t", "rows": []}} if edit else {},
        )
    return models
