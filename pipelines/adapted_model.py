"""A temporary folder with an adapter put on its base, as the probe runs any other model.

What the base and the factors say is computed as the comparison computes it (``scanner.weights.adapted``), without the
library that made the adapter. Heads that the adapter holds whole are added; a base without one becomes the classifier
of its kind. The tokenizer is the base's.
"""

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np

from scanner.facts import collect
from scanner.hub import Hub
from scanner.probe.staging import TOKENIZER_FILES, CannotProbe, staged
from scanner.records import F32, RepoFacts, RepoRef
from scanner.weights.adapted import PutOn, put_on
from scanner.weights.adapters import read_targets
from scanner.weights.dtypes import decode, is_float
from scanner.weights.opening import open_source
from scanner.weights.source import BlockRequest, WeightSource

CLASSIFIER: Final = "ForSequenceClassification"
LANGUAGE_MODELS: Final = ("ForCausalLM", "LMHeadModel")
HEADS: Final = (
    "classifier.out_proj.weight",
    "classification_head.out_proj.weight",
    "classifier.weight",
    "score.weight",
)
"""Tensors with a row for each class, in the order in which they are looked for."""
MOST_CLASSES: Final = 4096
_WEIGHTS: Final = "model.safetensors"
_MATRIX_AXES: Final = 2


class NothingToRun(CannotProbe):
    """The adapter makes no classifier of its base."""


@contextmanager
def adapted(
    facts: RepoFacts,
    base: RepoFacts,
    hub: Hub,
    *,
    limit_bytes: int,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Path]:
    """Yield a folder with configuration, tokenizer and merged weights (float32); it is gone afterwards.

    Args:
        facts: of the adapter's repository or folder.
        base: of its base.
        hub: the reader.
        limit_bytes: of the base's weights.
        progress: hears the downloaded and the expected bytes of the base.

    Raises:
        NothingToRun: neither the adapter nor the base holds a head with classes, and the base is no language model.
        CannotProbe: the base cannot be run, or is too large.
        HubAuditError: a file cannot be read, or nothing of the adapter can be used.
    """
    from safetensors.numpy import save_file

    with staged(base, hub, limit_bytes=limit_bytes, progress=progress) as bare, _temporary() as target:
        # What was fetched is read from where it lies now; of a local base there are links, which are not followed.
        local = base if base.ref.path is not None else collect(RepoRef(path=str(bare)), hub)
        with open_source(facts, hub) as adapter, open_source(local, hub) as weights:
            found = put_on(facts, adapter, weights, base)
            added = fresh(facts, adapter, found, limit_bytes=limit_bytes)
            config = configured(facts, base, {name: array.shape for name, array in added.items()})
            save_file({**merged(found, weights), **added}, target / _WEIGHTS, metadata={"format": "pt"})
        (target / "config.json").write_text(json.dumps(config), encoding="utf-8")
        for name in TOKENIZER_FILES:
            if (bare / name).exists():
                (target / name).write_bytes((bare / name).read_bytes())
        yield target


def merged(found: PutOn, weights: WeightSource) -> dict[str, F32]:
    """Every tensor of the base with the adapter's changes, float32, by the names of the model that was adapted.

    A base that is stored without the name of its backbone in front gets it where the adapter's names have it.
    """
    pairs = {pair.base.name: pair.name for pair in found.alignment.pairs}
    front = next((new.removesuffix(old) for old, new in pairs.items() if new != old and new.endswith(f".{old}")), "")
    shapes = {name: meta.shape for name, meta in weights.table.items() if is_float(meta.dtype)}
    changed = dict(zip(pairs, _whole(found.candidate, list(pairs.values())), strict=True))
    kept = [name for name in shapes if name not in changed]
    out = {front + name: array.reshape(shapes[name]) for name, array in zip(kept, _whole(weights, kept), strict=True)}
    return out | {pairs[name]: array.reshape(shapes[name]) for name, array in changed.items()}


def fresh(facts: RepoFacts, adapter: WeightSource, found: PutOn, *, limit_bytes: int) -> dict[str, F32]:
    """What the adapter holds whole and the base does not have: heads and poolers, float32.

    Raises:
        CannotProbe: they have more than ``limit_bytes``.
    """
    known = {pair.name for pair in found.alignment.pairs}
    targets = (target for target in read_targets(facts, adapter)[0] if target.name not in known and not target.held)
    new = {target.name: target.stored for target in targets if target.stored is not None}
    if sum(4 * meta.count for meta in new.values()) > limit_bytes:
        raise CannotProbe("its adapter holds more weights of its own than are run")
    arrays = _whole(adapter, [meta.name for meta in new.values()])
    return {name: array.reshape(new[name].shape) for name, array in zip(new, arrays, strict=True)}


def configured(facts: RepoFacts, base: RepoFacts, added: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """The base's configuration, as that of the model which the adapter makes of it.

    Args:
        facts: of the adapter; names of classes are taken from its config.json, if it has one.
        base: of the base.
        added: shapes of the tensors that the base does not have.

    Raises:
        NothingToRun: there is no head with classes, and the base is no language model.
    """
    config = dict(base.config or {})
    rows = next((added[name][0] for name in HEADS if len(added.get(name, ())) == _MATRIX_AXES), None)
    if rows is None:
        named = config.get("architectures")
        own = named[0] if isinstance(named, list) and named and isinstance(named[0], str) else ""
        if own.endswith((CLASSIFIER, *LANGUAGE_MODELS)):
            return config
        raise NothingToRun("the adapter makes neither a classifier nor a language model of its base")
    if rows > MOST_CLASSES:
        raise CannotProbe(f"its head has {rows:,} outputs; up to {MOST_CLASSES:,} are probed")
    config["architectures"] = [_classifier_of(config)]
    config["id2label"] = {str(i): name for i, name in enumerate(_classes(facts, rows))}
    config["label2id"] = {name: i for i, name in enumerate(_classes(facts, rows))}
    for key in ("num_labels", "problem_type"):
        config.pop(key, None)
    return config


def _classifier_of(config: Mapping[str, Any]) -> str:
    """The class of the library's classifiers of a base's kind."""
    from transformers.models.auto import modeling_auto

    known: Mapping[str, str] = modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in known:
        raise NothingToRun("there are no classifiers of its base's kind")
    return known[kind]


def _classes(facts: RepoFacts, count: int) -> list[str]:
    """The names of the classes: the adapter's, where they are as many and differ, or numbered ones."""
    told = (facts.config or {}).get("id2label")
    names = [told.get(str(i)) for i in range(count)] if isinstance(told, dict) else []
    plain = [name for name in names if isinstance(name, str)]
    return plain if len(set(plain)) == count else [f"LABEL_{i}" for i in range(count)]


def _whole(source: WeightSource, names: Sequence[str]) -> Iterator[F32]:
    """Tensors as float32 ``[rows, cols]``, in the order asked for."""
    wanted = [BlockRequest(name=name, rows=(0, source.table[name].rows_cols[0])) for name in names]
    for block in source.stream(wanted):
        yield decode(block.values, block.dtype).astype(np.float32)


@contextmanager
def _temporary() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="hubaudit-adapted-") as name:
        yield Path(name)
