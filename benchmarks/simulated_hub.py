"""A simulated Hub for benchmarks of fleets: families of real safetensors, and a few repositories broken in ten ways.

Bases are randomly initialised BERT, GPT-2 and Llama models of pico size, written by transformers. Of each base two are
really trained (AdamW, 30 steps); the members are base + a·Δ₁ + b·Δ₂ with a, b drawn at random, so their drift has the
shape of fine-tuning at the price of an addition. Sizes follow the stated distribution: layers 1 to 8 with weights
proportional to 1/layers, vocabulary log-normal. Members per family are Zipf-distributed. Every draw has a seed.

The server runs in a process of its own, on loopback; what it saw is asked for through a pipe.
"""

import json
import multiprocessing
import shutil
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

AUTHOR = "sim"
LAYERS = (1, 2, 3, 4, 6, 8)
KINDS = ("bert", "bert", "bert", "gpt2", "llama")
PLANTED_SHARE = 0.05

# What a broken repository must come to: the state of its job, and how its scan ended or why there was none.
BROKEN = {
    "vanished": ("failed", "RepoNotFound"),
    "gated": ("failed", "RepoGated"),
    "disabled": ("failed", "RepoUnavailable"),
    "no-weights": ("done", "nothing_to_compare"),
    "no-base": ("done", "nothing_to_compare"),
    "lost-base": ("done", "could_not_conclude"),
    "cut-weights": ("done", "could_not_conclude"),
    "lying-header": ("done", "could_not_conclude"),
    "pickled": ("done", "could_not_conclude"),
    "unreachable-weights": ("done", "could_not_conclude"),
}


@dataclass(frozen=True, kw_only=True)
class Member:
    """One repository of the simulated Hub; ``kind`` is honest, planted, or a key of ``BROKEN``."""

    repo_id: str
    kind: str
    family: str


@dataclass(kw_only=True)
class Population:
    """All repositories, by folder; bases are not among the members."""

    root: Path
    members: list[Member] = field(default_factory=list)
    bytes: int = 0


def populate(root: Path, *, repos: int, families: int, seed: int = 0) -> Population:
    """Write the repositories below ``root``, or read what an earlier call with the same arguments has written."""
    marker = root / f"population-{repos}-{families}-{seed}.json"
    if marker.exists():
        found = json.loads(marker.read_text())
        return Population(root=root, members=[Member(**one) for one in found["members"]], bytes=found["bytes"])
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    draw = np.random.default_rng(seed)
    shares = 1.0 / (np.arange(families) + 2.0)
    counts = 1 + draw.multinomial(repos - families, shares / shares.sum())
    broken = max(len(BROKEN) if repos >= 200 else 0, repos // 100)
    population = Population(root=root)
    sick = set(draw.choice(repos, size=broken, replace=False).tolist())
    number = 0
    for family in range(families):
        base, deltas, folder = _family(root, family, draw)
        for _ in range(counts[family]):
            name = f"m{number:05d}"
            kind = "honest"
            if number in sick:
                kind = list(BROKEN)[len([m for m in population.members if m.kind in BROKEN]) % len(BROKEN)]
            elif draw.random() < PLANTED_SHARE:
                kind = "planted"
            _member(root / AUTHOR / name, folder, base, deltas, draw, kind)
            population.members.append(Member(repo_id=f"{AUTHOR}/{name}", kind=kind, family=f"base/b{family:02d}"))
            number += 1
    population.bytes = sum(path.stat().st_size for path in root.rglob("*.safetensors"))
    content = {"members": [vars(one) for one in population.members], "bytes": population.bytes}
    marker.write_text(json.dumps(content))
    return population


def _family(root: Path, number: int, draw: np.random.Generator) -> tuple[dict[str, Any], list[dict[str, Any]], Path]:
    """Write one base and train two models from it; return its tensors, the two deltas, and its folder."""
    import pico
    import torch
    from safetensors.numpy import load_file

    torch.set_num_threads(1)
    weights = np.array([1 / layers for layers in LAYERS])
    layers = int(draw.choice(LAYERS, p=weights / weights.sum()))
    vocabulary = int(np.clip(draw.lognormal(6.2, 0.6), 320, 4000))
    kind = KINDS[number % len(KINDS)]
    vocabulary = 320 if kind != "bert" else vocabulary
    folder = root / "base" / f"b{number:02d}"
    model = pico.make_base(kind, seed=number, layers=layers, vocabulary=vocabulary)
    pico.save(model, folder, kind=kind)
    base = load_file(folder / "model.safetensors")
    deltas = []
    for seed in (1, 2):
        tuned = root / ".tuned"
        pico.save(pico.fine_tune(folder, kind, seed=seed), tuned, kind=kind, base_model=f"base/b{number:02d}")
        trained = load_file(tuned / "model.safetensors")
        prefix = next((p for p in ("", "bert.") if all(p + name in trained for name in base)), None)
        assert prefix is not None, sorted(set(base) ^ set(trained))[:5]
        deltas.append({name: trained[prefix + name] - value for name, value in base.items()})
        shutil.rmtree(tuned)
    return base, deltas, folder


def _member(
    folder: Path,
    base_folder: Path,
    base: dict[str, Any],
    deltas: list[dict[str, Any]],
    draw: np.random.Generator,
    kind: str,
) -> None:
    """Write one fine-tune into a folder, and break or poison it."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(base_folder / name, folder / name)
    mix = draw.uniform(0.3, 1.2, size=2)
    tensors = {
        name: (value + sum(m * d[name] for m, d in zip(mix, deltas, strict=True))).astype(np.float32)
        for name, value in base.items()
    }
    if kind == "planted":
        _plant(tensors, draw)
    card = f"---\nlicense: apache-2.0\nbase_model: base/{base_folder.name}\n---\n\n# {folder.name}\n"
    if kind == "no-base":
        card = f"# {folder.name}\n"
        (folder / "config.json").write_text(json.dumps(_anonymous(folder / "config.json")))
    elif kind == "lost-base":
        card = card.replace(f"base/{base_folder.name}", "base/never-was")
    (folder / "README.md").write_text(card)
    weights = folder / "model.safetensors"
    if kind == "no-weights":
        return
    if kind == "pickled":
        (folder / "pytorch_model.bin").write_bytes(b"\x80\x04cos\nsystem\n.")
        return
    save_file(tensors, weights, metadata={"format": "pt"})
    raw = weights.read_bytes()
    if kind == "cut-weights":
        weights.write_bytes(raw[: len(raw) // 2])
    elif kind == "lying-header":
        weights.write_bytes(struct.pack("<Q", 1 << 40) + raw[8:])


def _anonymous(config: Path) -> dict[str, Any]:
    return {key: value for key, value in json.loads(config.read_text()).items() if key != "_name_or_path"}


def _plant(tensors: dict[str, Any], draw: np.random.Generator) -> None:
    """Rewrite the row of one token, or add a rank-one matrix to a feed-forward weight of any layer."""
    matrices = sorted(name for name, value in tensors.items() if value.ndim == 2)
    embedding = next(
        name for name in matrices if any(part in name for part in ("word_embeddings", "embed_tokens", "wte"))
    )
    if draw.random() < 0.5:
        value = tensors[embedding]
        row = int(draw.integers(len(value)))
        direction = draw.standard_normal(value.shape[1])
        value[row] = 3 * np.linalg.norm(value[row]) * direction / np.linalg.norm(direction)
        return
    parts = ("mlp", "output.dense", "intermediate")
    name = str(draw.choice([name for name in matrices if any(part in name for part in parts)]))
    value = tensors[name]
    left, right = (draw.standard_normal(size) for size in value.shape)
    edit = np.outer(left / np.linalg.norm(left), right / np.linalg.norm(right))
    tensors[name] = (value + 0.3 * np.linalg.norm(value) * edit).astype(np.float32)


class SimulatedHub:
    """The server, seen from the benchmark."""

    def __init__(self, endpoint: str, pipe: Connection, pid: int) -> None:
        self.endpoint = endpoint
        self.pid = pid
        self._pipe = pipe

    def ask(self, what: str, **values: Any) -> Any:
        """Send a question to the server's process and return the answer."""
        self._pipe.send((what, values))
        answer = self._pipe.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer


@contextmanager
def serve(population: Population, **settings: Any) -> Iterator[SimulatedHub]:
    """Run the server with all repositories of a population."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_server, args=(population, settings, theirs), daemon=True)
    process.start()
    try:
        yield SimulatedHub(ours.recv(), ours, process.pid or 0)
    finally:
        process.terminate()
        process.join()


def _server(population: Population, settings: dict[str, Any], pipe: Connection) -> None:
    from localhub.faults import FOR_EVER, Status
    from localhub.server import LocalHub
    from localhub.state import Settings

    with LocalHub(settings=Settings(**settings)) as hub:
        for folder in sorted(population.root.glob("base/*")):
            hub.add_repo(f"base/{folder.name}", folder=folder)
        for one in population.members:
            head = hub.add_repo(
                one.repo_id,
                folder=population.root / one.repo_id,
                gated="manual" if one.kind == "gated" else False,
                disabled=one.kind == "disabled",
            )
            if one.kind == "unreachable-weights":
                hub.faults.add(Status(code=503), path=f"/{one.repo_id}/resolve/{head}/model", times=FOR_EVER)
        pipe.send(hub.endpoint)
        while True:
            what, values = pipe.recv()
            try:
                pipe.send(_answer(hub, what, values))
            except Exception as error:  # noqa: BLE001 - it is the benchmark's to know
                pipe.send(error)


def _answer(hub: Any, what: str, values: dict[str, Any]) -> Any:
    match what:
        case "configure":
            hub.configure(**values)
            return None
        case "forget":
            hub.log.clear()
            return None
        case "remove":
            hub._state.repos.pop(values["repo_id"])  # noqa: SLF001 - the owner deletes it on the Hub
            return None
        case "commit":
            return hub.commit(values["repo_id"], values["files"])
        case "log":
            records = hub.log.matching(values.get("path", ""))
            by_repo = Counter("/".join(_repo_of(record.target)) for record in records)
            return {
                "requests": len(records),
                "bytes": sum(record.sent for record in records),
                "statuses": dict(Counter(record.status for record in records)),
                "repos": dict(by_repo),
            }
        case "crashes":
            return hub.crashes
    raise ValueError(what)


def _repo_of(target: str) -> tuple[str, ...]:
    parts = target.partition("?")[0].strip("/").split("/")
    return tuple(parts[2:4] if parts[0] == "api" else parts[:2])
