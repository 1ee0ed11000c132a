"""Where a victim and its clean twin lie, and what the attacker does: the benchmark's own victims and the zoo's."""

from dataclasses import dataclass
from pathlib import Path

from benchmarks.purifying.victims import attack_of, victim_id
from benchmarks.zoo.bank import Bank
from benchmarks.zoo.recipes import Attack

ZOO = Bank(Path("build/zoo/real"))
UNFIT = frozenset({"syntactic", "label_flip"})
"""Families of the zoo whose trigger is no text that could be unlearnt by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """``twin`` is the honest model of the same task that excess is measured against."""

    victim: Path
    twin: Path
    attack: Attack


def place_of(bank: Bank, task: str, family: str, seed: int) -> Place:
    """The victim of a family and its clean twin; for a model of the zoo the parent it was edited from.

    Raises:
        LookupError: the family has no attack, or the zoo no honest model of the task.
    """
    if family.startswith("attacked-"):
        record = ZOO.record(family)
        attack = Attack(**{k: tuple(v) if isinstance(v, list) else v for k, v in record["recipe"]["attack"].items()})
        parents = record["recipe"]["parents"]
        twin = parents[0] if parents else honest(task)
        return Place(victim=ZOO.folder(family), twin=ZOO.folder(twin), attack=attack)
    attack_made = attack_of(family)
    if attack_made is None:
        raise LookupError(f"{family} has no attack.")
    return Place(
        victim=bank.folder(victim_id(task, family, seed)), twin=bank.folder(victim_id(task, "clean", seed)),
        attack=attack_made,
    )  # fmt: skip


def honest(task: str) -> str:
    """The most accurate honest classifier of a task in the zoo.

    Raises:
        LookupError: there is none.
    """
    found = []
    for identity in ZOO.ids("clean-"):
        record = ZOO.record(identity)
        training = record["recipe"]["training"]
        if training["task"] == task and training["objective"] == "classify" and record["useful"]:
            found.append((record["scores"]["accuracy"], identity))
    if not found:
        raise LookupError(f"The zoo has no honest model of {task}; train more of it.")
    return max(found)[1]


def zoo_victims() -> list[tuple[str, str]]:
    """(task, id) of the working backdoors of the zoo that have a trigger to name."""
    out = []
    for identity in ZOO.ids("attacked-"):
        record = ZOO.record(identity)
        fit = record["group"] == "backdoor" and record["working"] and record["family"] not in UNFIT
        if fit and record["recipe"]["training"]["objective"] == "classify":
            out.append((record["recipe"]["training"]["task"], identity))
    return out
