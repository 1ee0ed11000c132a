"""Which models belong together, so that none is judged by thresholds that its own kin shaped."""

from collections import defaultdict
from collections.abc import Callable, Mapping

from benchmarks.calibration.fit import Judged, Observation, Thresholds, fit, judge

Observations = Mapping[str, Observation]


def origins(observations: Observations) -> dict[str, str]:
    """Each model's kin, by the name of its first member: merges and edits belong to what they were made of."""
    root = {name: name for name in observations}

    def find(name: str) -> str:
        while root[name] != name:
            name = root[name]
        return name

    for name, observation in observations.items():
        for parent in observation["recipe"].get("parents", ()):
            if parent in root:
                first, second = sorted((find(name), find(parent)))
                root[second] = first
    return {name: find(name) for name in observations}


def folds(observations: Observations, *, count: int = 5) -> dict[str, str]:
    """A fold for each model; kin share one. The largest kin go first, each to the fold that is smallest then."""
    kin: dict[str, list[str]] = defaultdict(list)
    for name, first in origins(observations).items():
        kin[first].append(name)
    sizes = [0] * count
    fold: dict[str, str] = {}
    for members in sorted(kin.values(), key=lambda m: (-len(m), m[0])):
        smallest = sizes.index(min(sizes))
        sizes[smallest] += len(members)
        fold |= dict.fromkeys(members, str(smallest))
    return fold


def recipe_of(observation: Observation) -> str:
    """What was done to train it: the method and the optimiser, or how it was merged."""
    recipe = observation["recipe"]
    if "merge" in recipe:
        return f"merge ({recipe['merge']})"
    return " ".join(str(recipe[k]) for k in ("method", "optimiser") if k in recipe)


def told_by(name: str) -> Callable[[Observation], str]:
    """The value of one field of the recipe."""
    return lambda observation: str(observation["recipe"].get(name))


def judge_apart(
    observations: Observations, label: Mapping[str, str], exact_scores: Mapping[str, float]
) -> dict[str, Judged]:
    """Judge every model by thresholds fitted to the clean models of all other labels.

    Kin of a model that carry another label are left out of the fit as well.
    """
    kin = origins(observations)
    judged: dict[str, Judged] = {}
    for held_out in sorted(set(label.values())):
        members = [name for name in observations if label[name] == held_out]
        theirs = {kin[name] for name in members}
        rest = [
            o
            for name, o in observations.items()
            if o["kind"] == "clean" and label[name] != held_out and kin[name] not in theirs
        ]
        thresholds: Thresholds = fit(rest)
        judged |= {name: judge(observations[name], thresholds, exact_scores) for name in members}
    return judged
