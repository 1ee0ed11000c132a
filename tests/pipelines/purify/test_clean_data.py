"""Clean samples from files and from a dataset on the Hub: found columns, mapped labels, one split, clear refusals."""

import csv
import gzip
import io
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipelines.purify.data import DataSpec, Samples, declared_datasets, load_samples, parse_label_map, split_samples
from pipelines.purify.job import ModelKind
from scanner.errors import BadReference, CouldNotConclude

CONFIG = {"id2label": {"0": "NEGATIVE", "1": "POSITIVE"}}
Row = dict[str, Any]


def rows(count: int = 40, *, text: str = "text", label: str = "label") -> list[Row]:
    return [{text: f"sample number {i}", label: i % 2} for i in range(count)]


def as_csv(path: Path, found: list[Row]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(found[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
        writer.writeheader()
        writer.writerows(found)
    return path


def load(source: Path | str, kind: ModelKind = "classifier", **more: Any) -> Samples:
    config = more.pop("config", CONFIG)
    return load_samples(DataSpec(source=str(source), **more), config, kind, seed=more.get("seed", 0))


def test_every_kind_of_file_gives_the_same_samples(tmp_path: Path) -> None:
    found = rows()
    as_csv(tmp_path / "a.csv", found)
    as_csv(tmp_path / "a.tsv", found)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress((tmp_path / "a.csv").read_bytes()))
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(row) for row in found) + "\n\n")
    pq.write_table(pa.Table.from_pylist(found), tmp_path / "a.parquet")
    loaded = [load(tmp_path / name) for name in ("a.csv", "a.tsv", "a.csv.gz", "a.jsonl", "a.parquet")]
    assert {samples.digest for samples in loaded} == {loaded[0].digest}
    assert loaded[0].labels == tuple(i % 2 for i in range(40))
    assert (loaded[0].rows_read, loaded[0].dropped) == (40, 0)


@pytest.mark.parametrize("text", ["text", "sentence", "Review"])
@pytest.mark.parametrize("label", ["label", "target", "Sentiment"])
def test_usual_columns_are_found(tmp_path: Path, text: str, label: str) -> None:
    found = [{"id": i, **row} for i, row in enumerate(rows(text=text, label=label))]
    assert len(load(as_csv(tmp_path / "a.csv", found)).inputs) == 40


@pytest.mark.parametrize(
    "labels", [("NEGATIVE", "POSITIVE"), ("negative", " Positive "), ("LABEL_0", "label_1"), ("0", "1"), ("0.0", "1.0")]
)
def test_labels_are_mapped_to_the_models_classes(tmp_path: Path, labels: tuple[str, str]) -> None:
    found = [{"text": f"s {i}", "label": labels[i % 2]} for i in range(40)]
    assert load(as_csv(tmp_path / "a.csv", found)).labels == tuple(i % 2 for i in range(40))


def test_the_user_maps_labels(tmp_path: Path) -> None:
    found = [{"text": f"s {i}", "label": ("good", "bad")[i % 2]} for i in range(40)]
    path = as_csv(tmp_path / "a.csv", found)
    with pytest.raises(CouldNotConclude, match="--label-map"):
        load(path)
    mapped = load(path, label_map=parse_label_map(["good=POSITIVE", "bad=NEGATIVE"]))
    assert mapped.labels == tuple(1 - i % 2 for i in range(40))
    with pytest.raises(BadReference, match="no class neutral"):
        load(path, label_map={"good": "neutral"})
    with pytest.raises(BadReference, match="LABEL=CLASS"):
        parse_label_map(["good"])


def test_numbers_that_are_no_class_are_refused(tmp_path: Path) -> None:
    found = [{"text": f"s {i}", "label": 1 + i % 2} for i in range(40)]
    with pytest.raises(CouldNotConclude, match="its classes are 0 'NEGATIVE', 1 'POSITIVE'"):
        load(as_csv(tmp_path / "a.csv", found))


@pytest.mark.parametrize(
    ("found", "match"),
    [
        (rows(10), "10 usable samples"),
        ([{"text": f"s {i}", "label": 1} for i in range(40)], "All samples"),
        ([{"text": f"s {i}", "label": int(i < 2)} for i in range(40)], "2 usable samples of 'POSITIVE'"),
        ([{"text": f"s {i}", "label": "nan" if i % 3 else 1} for i in range(40)], "no label"),
        ([{"text": "" if i % 3 else "s", "label": i % 2} for i in range(40)], "no input"),
        ([{"text": "the same", "label": i % 2} for i in range(40)], "1 usable"),
    ],
    ids=["ten rows", "one class", "rare class", "NaN labels", "empty texts", "duplicates"],
)
def test_unusable_data_are_refused_with_the_reason(tmp_path: Path, found: list[Row], match: str) -> None:
    with pytest.raises(CouldNotConclude, match=match):
        load(as_csv(tmp_path / "a.csv", found))


def test_unlabelled_data_and_wrong_columns(tmp_path: Path) -> None:
    path = as_csv(tmp_path / "a.csv", [{"text": f"s {i}", "id": i} for i in range(40)])
    with pytest.raises(BadReference, match="unlabelled"):
        load(path)
    with pytest.raises(BadReference, match="no column 'lable'; it has 'text', 'id'"):
        load(path, label_column="lable")
    with pytest.raises(BadReference, match="--text-column"):
        load(as_csv(tmp_path / "b.csv", [{"x": "s", "label": 1}] * 40))


def test_a_few_holes_are_dropped_and_counted(tmp_path: Path) -> None:
    found = rows(40)
    found[3]["label"], found[5]["text"] = None, None
    pq.write_table(pa.Table.from_pylist(found), tmp_path / "a.parquet")
    samples = load(tmp_path / "a.parquet")
    assert (len(samples.inputs), samples.dropped) == (38, 2)


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("a.csv", b"", CouldNotConclude),
        ("a.jsonl", b"", CouldNotConclude),
        ("a.jsonl", b"[1, 2]\n", CouldNotConclude),
        ("a.jsonl", b'{"text": \n', CouldNotConclude),
        ("a.jsonl", b"[" * 100_000, CouldNotConclude),
        ("a.parquet", b"no parquet", CouldNotConclude),
        ("a.csv.gz", b"no gzip", CouldNotConclude),
        ("a.csv", b'text,label\n"' + b"x" * 200_000, CouldNotConclude),
        ("a.txt", b"text", BadReference),
    ],
)
def test_broken_files_are_one_sentence(tmp_path: Path, name: str, content: bytes, error: type[Exception]) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(error) as caught:
        load(tmp_path / name)
    assert str(caught.value).endswith((".", "again."))


def test_what_is_no_source_at_all(tmp_path: Path) -> None:
    for source in (tmp_path / "missing.csv", tmp_path, "no such thing!"):
        with pytest.raises(BadReference):
            load(source)


def test_memory_is_bounded_by_an_even_seeded_draw(tmp_path: Path) -> None:
    path = as_csv(tmp_path / "a.csv", rows(20_000))
    first = load(path, most=1000)
    assert first.rows_read == 20_000
    assert len(first.inputs) == 1000
    assert load(path, most=1000).digest == first.digest
    places = np.array([int(str(text).split()[-1]) for text in first.inputs])
    # Each quarter of the file gives 250 of 1,000; 80 is six standard deviations.
    assert all(abs(((places >= low) & (places < low + 5000)).sum() - 250) < 80 for low in range(0, 20_000, 5000))


def test_language_models_need_no_labels(tmp_path: Path) -> None:
    samples = load(as_csv(tmp_path / "a.csv", [{"text": f"s {i}", "x": 1} for i in range(40)]), "causal", config={})
    assert samples.labels == ()
    data = split_samples(samples, seed=0)
    assert (len(data.tune), len(data.select), len(data.test), data.classes) == (20, 10, 10, 0)


def test_pictures_come_as_arrays(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)

    def picture(width: int) -> dict[str, bytes]:
        out = io.BytesIO()
        Image.fromarray(generator.integers(0, 255, (8, width, 3), dtype=np.uint8)).save(out, "PNG")
        return {"bytes": out.getvalue()}

    found = [{"image": picture(8 + i), "label": i % 2} for i in range(20)]
    pq.write_table(pa.Table.from_pylist(found), tmp_path / "a.parquet")
    samples = load(tmp_path / "a.parquet", "image")
    data = split_samples(samples, seed=0)
    assert data.kind == "image"
    assert data.tune.images[0].shape[2] == 3
    with pytest.raises(TypeError):
        _ = data.tune.texts
    broken = [{"image": {"bytes": b"no picture"}, "label": i % 2} for i in range(20)]
    pq.write_table(pa.Table.from_pylist(broken), tmp_path / "b.parquet")
    with pytest.raises(CouldNotConclude, match="cannot be decoded"):
        load(tmp_path / "b.parquet", "image")


@settings(max_examples=50, deadline=None)
@given(counts=st.lists(st.integers(4, 60), min_size=2, max_size=5), seed=st.integers(0, 1000))
def test_the_split_is_stratified_complete_and_disjoint(counts: list[int], seed: int) -> None:
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    random.Random(seed).shuffle(labels)
    samples = Samples(
        inputs=tuple(f"text {i}" for i in range(len(labels))),
        labels=tuple(labels),
        class_names=tuple(map(str, range(len(counts)))),
        source="made up",
        rows_read=len(labels),
        dropped=0,
    )
    data = split_samples(samples, seed=seed)
    parts = [data.tune, data.select, data.test]
    everything = [text for part in parts for text in part.texts]
    assert sorted(everything) == sorted(map(str, samples.inputs))
    for part in parts:
        assert set(part.labels) == set(range(len(counts)))
    tuned = Counter(data.tune.labels)
    assert all(abs(tuned[label] - count / 2) <= 1 for label, count in enumerate(counts))
    assert split_samples(samples, seed=seed) == data


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"datasets": ["org/a", "b"]}, ("org/a", "b")),
        ({"datasets": "org/a"}, ("org/a",)),
        ({"datasets": ["a b\x1b[31m", 7, None, "", "x" * 300]}, ()),
        ({"datasets": {"a": 1}}, ()),
        (None, ()),
    ],
)
def test_the_datasets_of_a_card(metadata: dict[str, Any] | None, expected: tuple[str, ...]) -> None:
    assert declared_datasets(metadata) == expected


@pytest.mark.parametrize(
    ("config", "match"),
    [
        ({"id2label": {"0": "only"}}, "one output"),
        ({"id2label": {"0": "a", "2": "b"}}, "does not number"),
        ({"id2label": {"x": "a"}}, "not numbered"),
        ({"id2label": 7}, "does not say"),
    ],
)
def test_configs_without_usable_classes(tmp_path: Path, config: dict[str, Any], match: str) -> None:
    with pytest.raises(CouldNotConclude, match=match):
        load(as_csv(tmp_path / "a.csv", [{"text": f"s {i}", "label": 0} for i in range(40)]), config=config)
