"""Drift on disk and back, and everything that can be wrong with what lies there."""

import os
import time
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from paired import opened, write_model

from scanner.drift.measure import measure
from scanner.drift.stored import MOST_SECONDS, DriftStore
from scanner.records import PairSpec, RepoFacts, RepoRef, Role, TensorDrift

CANDIDATE, BASE = (RepoRef(repo_id=f"org/{name}", revision=digit * 40) for name, digit in (("a", "1"), ("b", "2")))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[RepoFacts, RepoFacts]:
    rng = np.random.default_rng(0)
    root = tmp_path_factory.mktemp("pair")
    base = {"m": (rng.standard_normal((40, 24)), "F32"), "v": (rng.standard_normal(24), "F32")}
    candidate = {
        name: (values + 0.01 * rng.standard_normal(values.shape), kind) for name, (values, kind) in base.items()
    }
    return write_model(root / "base", base), write_model(root / "candidate", candidate)


def store_in(folder: Path, *, version: str = "1") -> DriftStore:
    return DriftStore(folder, CANDIDATE, BASE, version=version)


def equal(one: TensorDrift, other: TensorDrift) -> bool:
    for part in fields(TensorDrift):
        left, right = getattr(one, part.name), getattr(other, part.name)
        same = np.array_equal(left, right) if isinstance(left, np.ndarray) else left == right
        if not same:
            return False
    return True


def test_what_was_kept_comes_back_to_the_last_bit(tmp_path: Path, pair: tuple[RepoFacts, RepoFacts]) -> None:
    with opened(*pair) as (alignment, base, candidate):
        first = measure(alignment, base, candidate, store=store_in(tmp_path))
        again = store_in(tmp_path)
        read = base.bytes_read
        second = measure(alignment, base, candidate, store=again)
        assert base.bytes_read == read, "nothing is read twice"
    assert again.restored == 2
    assert all(equal(one, other) for one, other in zip(first.tensors, second.tensors, strict=True))
    assert second.coverage.parameters_compared == first.coverage.parameters_compared


@pytest.mark.parametrize("role", ["mlp_out", "embedding"])
def test_singular_vectors_and_headings_come_back_as_well(
    tmp_path: Path, pair: tuple[RepoFacts, RepoFacts], role: Role
) -> None:
    with opened(*pair) as (alignment, base, candidate):
        spec = replace(alignment.pairs[0], role=role)
        (first,) = measure(replace(alignment, pairs=(spec,)), base, candidate, store=store_in(tmp_path)).tensors
    again = store_in(tmp_path).load(spec, "spectrum", 0)
    assert again is not None
    assert again.spectrum is not None
    assert first.spectrum is not None
    kept = [(first.spectrum.left, again.spectrum.left), (first.spectrum.right, again.spectrum.right)]
    kept.append((first.row_heading, again.row_heading))
    assert [one is not None for one, _ in kept] == ([True, True, False] if role == "mlp_out" else [False, True, True])
    for one, other in kept:
        assert one is other is None or (one.dtype == other.dtype and np.array_equal(one, other))


def test_other_rows_another_depth_or_another_version_are_other_measurements(
    tmp_path: Path, pair: tuple[RepoFacts, RepoFacts]
) -> None:
    with opened(*pair) as (alignment, base, candidate):
        measure(alignment, base, candidate, store=store_in(tmp_path))
        spec = alignment.pairs[0]
    assert store_in(tmp_path).load(spec, "spectrum", 0) is not None
    assert store_in(tmp_path).load(replace(spec, runs=((0, 4),)), "spectrum", 0) is None
    assert store_in(tmp_path).load(spec, "moments", 0) is None
    assert store_in(tmp_path).load(spec, "spectrum", 1) is None
    assert store_in(tmp_path, version="2").load(spec, "spectrum", 0) is None


def kept(folder: Path, pair: tuple[RepoFacts, RepoFacts]) -> tuple[PairSpec, Path]:
    with opened(*pair) as (alignment, base, candidate):
        spec = alignment.pairs[0]
        measure(replace(alignment, pairs=(spec,)), base, candidate, store=store_in(folder))
    (place,) = folder.rglob("*.npz")
    return spec, place


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "text", "pickle", "other pair"])
def test_a_damaged_file_is_left_aside_and_counted(
    tmp_path: Path, pair: tuple[RepoFacts, RepoFacts], damage: str
) -> None:
    spec, place = kept(tmp_path, pair)
    raw = place.read_bytes()
    match damage:
        case "empty":
            place.write_bytes(b"")
        case "cut":
            place.write_bytes(raw[: len(raw) // 2])
        case "flipped":
            at = raw.index(b"NUMPY") + 200
            place.write_bytes(raw[:at] + bytes([raw[at] ^ 255]) + raw[at + 1 :])
        case "text":
            place.write_bytes(b"not an archive")
        case "pickle":
            with place.open("wb") as file:
                np.savez(file, facts=np.array([object()], dtype=object))
        case _:
            with place.open("wb") as file:
                np.savez(file, facts=np.frombuffer(b"{}", np.uint8), row_delta_sq=np.zeros(3))
    store = store_in(tmp_path)
    assert store.load(spec, "spectrum", 0) is None
    assert (store.restored, store.unreadable) == (0, 1)


def test_the_salt_of_an_interrupted_scan_is_kept_until_the_scan_ends(tmp_path: Path) -> None:
    assert store_in(tmp_path).salt(11) == 11
    assert store_in(tmp_path).salt(12) == 11
    store_in(tmp_path).forget()
    assert store_in(tmp_path).salt(13) == 13
    next(tmp_path.rglob("salt.json")).write_text("null")
    assert store_in(tmp_path).salt(14) == 14


def test_what_is_old_goes_and_what_is_young_stays(tmp_path: Path, pair: tuple[RepoFacts, RepoFacts]) -> None:
    kept(tmp_path, pair)
    other = DriftStore(tmp_path, BASE, CANDIDATE, version="1")
    assert len(list(tmp_path.iterdir())) == 2
    long_ago = time.time() - 2 * MOST_SECONDS
    for path in (*tmp_path.rglob("*"),):
        os.utime(path, (long_ago, long_ago))
    assert other.salt(1) == 1
    store_in(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2, "the folder of the other scan was written just now"
    for path in (*tmp_path.rglob("*"),):
        os.utime(path, (long_ago, long_ago))
    store_in(tmp_path)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_that_cannot_be_written_costs_nothing_but_the_resumption(
    tmp_path: Path, pair: tuple[RepoFacts, RepoFacts]
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    store = store_in(blocked)
    with opened(*pair) as (alignment, base, candidate):
        assert len(measure(alignment, base, candidate, store=store).tensors) == 2
    assert store.salt(5) == 5
    store.forget()
    assert blocked.read_text() == "in the way"
