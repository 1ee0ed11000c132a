"""Clean samples: read in one pass with bounded memory, checked, labelled as the model labels, and split once.

A reservoir (Vitter 1985, algorithm R) with a fixed seed keeps an even draw of at most ``most`` samples, so that two
gigabytes of data cost time but no memory.
"""

import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final

import numpy as np

from pipelines.purify.job import CleanData, Image, ModelKind, Split
from pipelines.purify.labels import LabelReader, class_names, is_missing
from pipelines.purify.rows import Row, RowSource, open_rows
from scanner.errors import BadReference, CouldNotConclude
from scanner.paths import shown

MOST_SAMPLES: Final = 4096
MAX_TEXT_CHARS: Final = 20_000
MAX_PIXELS: Final = 64 << 20
LEAST_SAMPLES: Final = 16
LEAST_PER_CLASS: Final = 4
SHARES: Final = (0.5, 0.25)
"""Of tune and select; the rest is test."""
_TEXT_NAMES: Final = ("text", "sentence", "content", "review", "comment", "tweet", "document", "input", "prompt")
_IMAGE_NAMES: Final = ("image", "img", "picture", "photo")
_LABEL_NAMES: Final = ("label", "labels", "target", "class", "category", "sentiment", "coarse_label", "fine_label")
_LONG_SIDE: Final = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSpec:
    """What the user said about the data. ``label_map`` maps labels of the data to classes of the model."""

    source: str
    text_column: str | None = None
    label_column: str | None = None
    label_map: Mapping[str, str] = field(default_factory=dict)
    split: str | None = None
    config: str | None = None
    most: int = MOST_SAMPLES


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Usable samples in reservoir order; ``labels`` is empty for language models. ``dropped`` counts unusable rows."""

    inputs: tuple[str | Image, ...]
    labels: tuple[int, ...]
    class_names: tuple[str, ...]
    source: str
    rows_read: int
    dropped: int

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the samples with their labels, in order."""
        hasher = sha256()
        for index, each in enumerate(self.inputs):
            label = self.labels[index] if self.labels else -1
            raw = each.encode("utf-8", "surrogatepass") if isinstance(each, str) else each.tobytes()
            hasher.update(f"{label}:{len(raw)}:".encode() + raw)
        return hasher.hexdigest()


def load_samples(
    spec: DataSpec, config: Mapping[str, Any], kind: ModelKind, *, seed: int, token: str | None = None
) -> Samples:
    """Read and check samples for a model.

    Args:
        spec: where they are.
        config: the model's config.json.
        kind: decides what is read: texts with labels, texts, or pictures with labels.
        seed: of the draw.
        token: for datasets on the Hub.

    Raises:
        BadReference: the source or a column does not exist, or ``label_map`` names an unknown class.
        CouldNotConclude: unlabelled, mislabelled, of a single class, too few, mostly empty, or not readable.
    """
    with open_rows(spec.source, split=spec.split, config=spec.config, token=token) as source:
        inputs_at = _column(source, spec.text_column, _IMAGE_NAMES if kind == "image" else _TEXT_NAMES, "--text-column")
        if kind == "causal":
            draw = _Draw(spec.most, seed)
            for row in source.rows:
                draw.offer(row, inputs_at, None)
            samples = _checked(draw, None, source.name, kind)
        else:
            labels_at = _column(source, spec.label_column, _LABEL_NAMES, "--label-column", besides=inputs_at)
            reader = LabelReader(class_names(config), source.class_names.get(labels_at, ()), spec.label_map)
            reader.check_map()
            draw = _Draw(spec.most, seed)
            for row in source.rows:
                draw.offer(row, inputs_at, labels_at)
            samples = _checked(draw, reader, source.name, kind)
    return samples


def split_samples(samples: Samples, *, seed: int, shares: tuple[float, float] = SHARES) -> CleanData:
    """Split samples once into tune, select and test, class by class, at least one of each class in each part.

    Args:
        samples: at least ``LEAST_PER_CLASS`` of each class that occurs.
        seed: of the shuffle.
        shares: of tune and select, in (0, 1), together below 1.
    """
    generator = np.random.default_rng(seed)
    labels = np.asarray(samples.labels or [0] * len(samples.inputs))
    parts: tuple[list[int], list[int], list[int]] = ([], [], [])
    for label in np.unique(labels):
        places = generator.permutation(np.flatnonzero(labels == label))
        tune = min(max(1, round(shares[0] * len(places))), len(places) - 2)
        select = min(max(1, round(shares[1] * len(places))), len(places) - tune - 1)
        for part, some in zip(parts, np.split(places, [tune, tune + select]), strict=True):
            part += [int(place) for place in some]
    tune_part, select_part, test_part = (_part(samples, sorted(part)) for part in parts)
    return CleanData(
        kind="image" if samples.inputs and not isinstance(samples.inputs[0], str) else "text",
        tune=tune_part,
        select=select_part,
        test=test_part,
        class_names=samples.class_names,
        digest=samples.digest,
        source=samples.source,
    )


def declared_datasets(metadata: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Return the datasets that a card names, as they may be given to ``--data``; at most five."""
    named = (metadata or {}).get("datasets")
    listed = [named] if isinstance(named, str) else named if isinstance(named, list) else []
    return tuple(name for name in listed if isinstance(name, str) and _plain(name))[:5]


def _plain(name: str) -> bool:
    return 0 < len(name) <= 200 and name.isascii() and all(c.isalnum() or c in "._-/" for c in name)


class _Draw:
    """An even draw of at most ``most`` rows: (input, label) as they came."""

    def __init__(self, most: int, seed: int) -> None:
        self.kept: list[tuple[Any, Any]] = []
        self.read = self.unlabelled = self.empty = 0
        self._most = most
        self._generator = np.random.default_rng(seed)

    def offer(self, row: Row, inputs_at: str, labels_at: str | None) -> None:
        """Consider one row."""
        self.read += 1
        value, label = row.get(inputs_at), row.get(labels_at) if labels_at else None
        if is_missing(value):
            self.empty += 1
            return
        if labels_at and is_missing(label):
            self.unlabelled += 1
            return
        usable = self.read - self.empty - self.unlabelled
        if len(self.kept) < self._most:
            self.kept.append((_bounded(value), label))
        elif (place := int(self._generator.integers(usable))) < self._most:
            self.kept[place] = (_bounded(value), label)


def _bounded(value: Any) -> Any:
    return value[:MAX_TEXT_CHARS] if isinstance(value, str) else value


def _column(
    source: RowSource, wanted: str | None, usual: Sequence[str], option: str, besides: str | None = None
) -> str:
    """The column of that name, or the usual one.

    Raises:
        BadReference: it is not there, or it cannot be told which one is meant.
    """
    listed = ", ".join(shown(column, 40) for column in source.columns[:20])
    if wanted is not None:
        if wanted in source.columns:
            return wanted
        raise BadReference(
            f"{shown(source.name)} has no column {shown(wanted)}; it has {listed}. Name one with {option}."
        )
    by_name = {column.strip().casefold(): column for column in source.columns if column != besides}
    found = next((by_name[name] for name in usual if name in by_name), None)
    if found is not None:
        return found
    what = "labels, so it may be unlabelled" if "label" in option else "inputs"
    raise BadReference(f"No column of {shown(source.name)} looks like {what} ({listed}); name it with {option}.")


def _checked(draw: _Draw, reader: LabelReader | None, source: str, kind: ModelKind) -> Samples:
    """Turn the drawn rows into samples of the model's classes, each input once.

    Raises:
        CouldNotConclude: as ``load_samples``.
    """
    name = shown(source)
    if not draw.kept or 2 * (draw.empty + draw.unlabelled) > draw.read:
        lacking = f"{draw.empty:,} have no input and {draw.unlabelled:,} no label"
        raise CouldNotConclude(f"Of {draw.read:,} rows of {name}, {lacking}; check the columns that were read.")
    inputs: list[Any] = []
    labels: list[int] = []
    strange: Counter[str] = Counter()
    seen: set[bytes] = set()
    for value, label in draw.kept:
        index = reader.index(label) if reader else 0
        if index is None:
            strange[str(label)] += 1
            continue
        each = _as_image(value, name) if kind == "image" else _as_text(value, name)
        mark = sha256(each.casefold().encode("utf-8", "surrogatepass") if isinstance(each, str) else each.tobytes())
        if mark.digest() in seen:
            continue
        seen.add(mark.digest())
        inputs.append(each)
        labels.append(index)
    if reader and strange:
        raise reader.mismatch([label for label, _ in strange.most_common()])
    if len(inputs) < LEAST_SAMPLES:
        raise CouldNotConclude(
            f"{name} has {len(inputs)} usable samples; at least {LEAST_SAMPLES} are needed, and 64 or more are better."
        )
    if reader:
        _check_classes(Counter(labels), reader.classes, name)
    return Samples(
        inputs=tuple(inputs),
        labels=tuple(labels) if reader else (),
        class_names=reader.classes if reader else (),
        source=source,
        rows_read=draw.read,
        dropped=draw.empty + draw.unlabelled,
    )


def _check_classes(counts: Counter[int], classes: Sequence[str], name: str) -> None:
    if len(classes) < 2:
        raise CouldNotConclude("The model has one output, so it ranks or regresses; only classifiers can be evaluated.")
    if len(counts) < 2:
        only = shown(classes[next(iter(counts))], 40)
        raise CouldNotConclude(f"All samples of {name} have the label {only}; samples of at least two are needed.")
    rarest, count = min(counts.items(), key=lambda pair: (pair[1], pair[0]))
    if count < LEAST_PER_CLASS:
        raise CouldNotConclude(
            f"{name} has {count} usable samples of {shown(classes[rarest], 40)}; at least {LEAST_PER_CLASS} of each "
            "class that occurs are needed."
        )


def _as_text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise CouldNotConclude(f"The inputs of {name} are no texts; name the column of texts with --text-column.")
    return value


def _as_image(value: Any, name: str) -> Image:
    """Decode one picture as uint8 ``[height, width, 3]``, at most ``_LONG_SIDE`` pixels long."""
    try:
        from PIL import Image as Pictures
    except ImportError as error:
        raise CouldNotConclude("Pictures need `pip install 'hubaudit[purify]'`.") from error
    raw: Any = value.get("bytes") if isinstance(value, Mapping) else value
    try:
        picture = raw if isinstance(raw, Pictures.Image) else Pictures.open(io.BytesIO(raw))
        if picture.width * picture.height > MAX_PIXELS:
            raise ValueError("more pixels than any sample has")
        picture = picture.convert("RGB")
        picture.thumbnail((_LONG_SIDE, _LONG_SIDE))
    except (OSError, ValueError, TypeError, SyntaxError, Pictures.DecompressionBombError) as error:
        raise CouldNotConclude(f"A picture of {name} cannot be decoded ({error}); check the column.") from error
    return np.asarray(picture, dtype=np.uint8)


def _part(samples: Samples, places: Sequence[int]) -> Split:
    inputs: Any = tuple(samples.inputs[i] for i in places)
    return Split(inputs=inputs, labels=tuple(samples.labels[i] for i in places) if samples.labels else ())


def parse_label_map(pairs: Iterator[str] | Sequence[str]) -> dict[str, str]:
    """Read ``LABEL=CLASS`` pairs.

    Raises:
        BadReference: one is no such pair.
    """
    mapped: dict[str, str] = {}
    for pair in pairs:
        label, sign, name = pair.partition("=")
        if not sign or not label.strip() or not name.strip():
            raise BadReference(f"--label-map {json.dumps(pair)}: write LABEL=CLASS, for example pos=POSITIVE.")
        mapped[label.strip()] = name.strip()
    return mapped
