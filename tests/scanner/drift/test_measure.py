"""The walk over two checkpoints: real files, a real Hub client, and sources that fail on the way."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import drift_facts
import numpy as np
import pico
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from localhub.faults import FOR_EVER, Status
from localhub.server import LocalHub
from paired import opened, same_names, write_model
from quickhub import pinned, quick_hub
from safetensors.torch import save_file
from weightfolders import facts_of

from scanner.alignment import align
from scanner.drift.measure import measure
from scanner.drift.moments import MAX_COLUMNS
from scanner.errors import CorruptWeights, HubUnreachable
from scanner.facts import collect
from scanner.records import Alignment, DriftFacts, RepoFacts, Skip, TensorDrift
from scanner.weights.opening import open_source
from scanner.weights.source import Block, BlockRequest, WeightSource


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A pico base and an honest fine-tune of it, whose rows and heads differ as they do in life."""
    return pico.family(tmp_path_factory.mktemp("family"))


def aligned(base: WeightSource, candidate: WeightSource, folders: tuple[Path, Path]) -> Alignment:
    base_config, candidate_config = (facts_of(folder).config for folder in folders)
    return align(candidate.table, base.table, candidate_config=candidate_config, base_config=base_config)


def assert_same(one: TensorDrift, other: TensorDrift, rtol: float = 1e-5) -> None:
    assert (one.spec.name, one.count, one.changed) == (other.spec.name, other.count, other.changed)
    assert (one.nonfinite, one.base_nonfinite) == (other.nonfinite, other.base_nonfinite)
    for name in ("base_l2", "candidate_l2", "delta_l2", "row_delta_sq", "row_base_sq", "col_delta_sq"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=rtol, err_msg=name)
    np.testing.assert_allclose(one.dot, other.dot, atol=1e-6 * one.base_l2 * one.delta_l2)
    np.testing.assert_allclose(one.row_dot, other.row_dot, atol=1e-6 * one.base_l2 * one.delta_l2)
    assert (one.residual is None) == (other.residual is None)
    if one.residual and other.residual:
        assert one.residual.mean_square == pytest.approx(other.residual.mean_square, rel=1e-4)
        assert one.residual.maximum == pytest.approx(other.residual.maximum, rel=1e-4)
    assert (one.spectrum is None) == (other.spectrum is None)
    if one.spectrum and other.spectrum:
        np.testing.assert_allclose(one.spectrum.values[:3], other.spectrum.values[:3], rtol=1e-4)


def test_a_fine_tune_measures_as_whole_arrays_do(folders: tuple[Path, Path]) -> None:
    with open_source(facts_of(folders[0]), None) as base, open_source(facts_of(folders[1]), None) as candidate:
        alignment = aligned(base, candidate, folders)
        assert len(alignment.pairs) > 20
        facts = measure(alignment, base, candidate)
        assert [tensor.spec for tensor in facts.tensors] == list(alignment.pairs)
        assert facts.coverage.parameters_compared == alignment.parameters_compared
        assert facts.coverage.parameters_total == alignment.parameters_total
        assert facts.coverage.skipped[: len(alignment.skips)] == alignment.skips
        assert facts.coverage.bytes_read == base.bytes_read + candidate.bytes_read
        assert facts.coverage.bytes_total == base.bytes_total + candidate.bytes_total
    plain = {tensor.spec.name: tensor for tensor in drift_facts.from_folders(*folders).tensors}
    for tensor in facts.tensors:
        assert_same(tensor, plain[tensor.spec.name])


def test_the_hub_measures_as_the_folder_does(hub_server: LocalHub, folders: tuple[Path, Path]) -> None:
    names = ("org/base", "org/tuned")
    for name, folder in zip(names, folders, strict=True):
        hub_server.add_repo(name, folder=folder)
    hub = quick_hub(hub_server)

    def measured(base: WeightSource, candidate: WeightSource) -> DriftFacts:
        with base, candidate:
            return measure(aligned(base, candidate, folders), base, candidate, block_bytes=4096)

    local = measured(*(open_source(facts_of(folder), None) for folder in folders))
    remote = measured(*(open_source(collect(pinned(hub, name), hub), hub) for name in names))
    assert remote.coverage == local.coverage
    for one, other in zip(local.tensors, remote.tensors, strict=True):
        assert_same(one, other, rtol=0)


@pytest.fixture(scope="module")
def varied(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Tensors of every shape, with rows that only one side has, and NaN."""
    rng = np.random.default_rng(0)
    shapes = {
        "matrix": (70, 40),
        "tall": (900, 3),
        "vector": (500,),
        "scalar": (),
        "conv": (8, 3, 2, 2),
        "row": (1, 60),
        "empty": (0, 7),
        "hollow": (7, 0),
    }
    base = {name: (rng.standard_normal(shape), "F32") for name, shape in shapes.items()}
    tuned = {name: (array + 0.01 * rng.standard_normal(array.shape), "BF16") for name, (array, _) in base.items()}
    base["tokens"] = (rng.standard_normal((100, 16)), "BF16")
    tuned["tokens"] = (np.concatenate([base["tokens"][0], np.full((7, 16), np.nan)]), "BF16")
    tuned["matrix"][0][69, 39] = np.inf
    folder = tmp_path_factory.mktemp("varied")
    write_model(folder / "base", base)
    write_model(folder / "tuned", tuned)
    return folder / "base", folder / "tuned"


def run(folders: tuple[Path, Path], **options: Any) -> DriftFacts:
    with opened(*map(facts_of, folders)) as (alignment, base, candidate):
        return measure(alignment, base, candidate, **options)


def test_every_shape_is_measured_or_a_skip(varied: tuple[Path, Path]) -> None:
    facts = run(varied)
    found = {tensor.spec.name: tensor for tensor in facts.tensors}
    assert set(found) == {"matrix", "tall", "vector", "scalar", "conv", "row", "tokens"}
    assert {skip.what for skip in facts.coverage.skipped} == {"empty", "hollow"}
    assert found["conv"].row_delta_sq.shape == (8,)
    assert found["conv"].col_delta_sq.shape == (12,)
    assert found["vector"].row_delta_sq.shape == (1,)
    assert found["vector"].col_delta_sq.shape == (500,)
    assert found["scalar"].count == 1
    assert found["matrix"].nonfinite == 1
    assert (found["tokens"].count, found["tokens"].nonfinite, found["tokens"].changed) == (1600, 0, 0)
    assert found["tokens"].rounding_floor == 0
    assert found["tall"].rounding_floor > 0
    assert facts.coverage.parameters_compared == sum(tensor.count for tensor in facts.tensors)


def test_rows_that_only_the_candidate_has_are_not_read(varied: tuple[Path, Path]) -> None:
    with opened(*map(facts_of, varied)) as (alignment, base, candidate):
        tokens = [pair for pair in alignment.pairs if pair.name == "tokens"]
        before = candidate.bytes_read
        measure(replace(alignment, pairs=tuple(tokens)), base, candidate)
        assert candidate.bytes_read - before == 100 * 16 * 2


def test_rows_in_the_middle_keep_their_own_numbering(varied: tuple[Path, Path]) -> None:
    with opened(*map(facts_of, varied)) as (alignment, base, candidate):
        pair = next(pair for pair in alignment.pairs if pair.name == "tall")
        whole = measure(replace(alignment, pairs=(pair,)), base, candidate).tensors[0]
        part = measure(replace(alignment, pairs=(replace(pair, rows=(100, 300)),)), base, candidate, block_bytes=512)
    np.testing.assert_array_equal(part.tensors[0].row_delta_sq, whole.row_delta_sq[100:300])
    assert part.coverage.parameters_compared == 600


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(block_bytes=st.integers(1, 40_000), threads=st.integers(1, 3))
def test_block_size_and_threads_do_not_matter(varied: tuple[Path, Path], block_bytes: int, threads: int) -> None:
    expected = run(varied)
    facts = run(varied, block_bytes=block_bytes, threads=threads)
    assert facts.coverage == expected.coverage
    for one, other in zip(facts.tensors, expected.tensors, strict=True):
        assert_same(one, other)


def test_progress_ends_at_the_total(varied: tuple[Path, Path]) -> None:
    seen: list[tuple[int, int]] = []
    facts = run(varied, block_bytes=1000, progress=lambda done, total: seen.append((done, total)))
    assert len(seen) > 10
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert {total for _, total in seen} == {facts.coverage.bytes_read}
    assert seen[-1][0] == seen[-1][1]


def test_rows_beyond_a_million_columns_come_in_runs(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    base = rng.standard_normal((2, MAX_COLUMNS + 9), dtype=np.float32)
    tuned = base.copy()
    tuned[1, MAX_COLUMNS + 5] += 1
    facts = (write_model(tmp_path / name, {"w": (array, "F32")}) for name, array in (("b", base), ("t", tuned)))
    with opened(*facts) as (alignment, left, right):
        drift = measure(alignment, left, right, block_bytes=1 << 20).tensors[0]
    assert drift.changed == 1
    np.testing.assert_allclose(drift.row_delta_sq, [0, 1], rtol=1e-6)
    np.testing.assert_allclose(drift.row_base_sq, (base.astype(np.float64) ** 2).sum(1), rtol=1e-6)


def test_ten_thousand_tensors(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    base = {f"layer.{i}.bias": (rng.standard_normal(16), "F32") for i in range(10_000)}
    tuned = {name: (array + (name == "layer.77.bias"), "F32") for name, (array, _) in base.items()}
    with opened(write_model(tmp_path / "b", base), write_model(tmp_path / "t", tuned)) as (alignment, left, right):
        facts = measure(alignment, left, right)
    assert len(facts.tensors) == 10_000
    assert [tensor.spec.name for tensor in facts.tensors if tensor.changed] == ["layer.77.bias"]


class Failing:
    """A source that fails at some tensors, the first time or whenever they are asked for."""

    def __init__(self, source: WeightSource, errors: dict[str, Exception]) -> None:
        self._source = source
        self._errors = errors
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def stream(self, wanted: Iterable[BlockRequest]) -> Iterator[Block]:
        for request in wanted:
            self.asked.append(request.name)
            if request.name in self._errors:
                raise self._errors[request.name]
            yield from self._source.stream([request])


def run_failing(folders: tuple[Path, Path], errors: dict[str, Exception], **options: Any) -> tuple[DriftFacts, Failing]:
    with opened(*map(facts_of, folders)) as (alignment, base, candidate):
        failing = Failing(candidate, errors)
        return measure(alignment, base, failing, **options), failing


def test_a_corrupt_tensor_is_a_skip_and_the_rest_goes_on(varied: tuple[Path, Path]) -> None:
    seen: list[tuple[int, int]] = []
    errors: dict[str, Exception] = {name: CorruptWeights(f"{name} lies.") for name in ("matrix", "tall", "tokens")}
    facts, _ = run_failing(varied, errors, progress=lambda done, total: seen.append((done, total)))
    assert {tensor.spec.name for tensor in facts.tensors} == {"vector", "scalar", "conv", "row"}
    why = {skip.what: skip.why for skip in facts.coverage.skipped}
    assert why["tall"] == "The candidate could not be read: tall lies."
    assert facts.coverage.parameters_compared == 500 + 1 + 96 + 60
    assert seen[-1][0] == seen[-1][1]


def test_a_tensor_that_breaks_off_leaves_no_figures(varied: tuple[Path, Path]) -> None:
    class Breaking(Failing):
        def stream(self, wanted: Iterable[BlockRequest]) -> Iterator[Block]:
            for request in wanted:
                if request.name == "tall" and request.rows[0] > 0:
                    raise CorruptWeights("cut off.")
                yield from self._source.stream([request])

    with opened(*map(facts_of, varied)) as (alignment, base, candidate):
        facts = measure(alignment, base, Breaking(candidate, {}), block_bytes=1024)
    assert "tall" not in {tensor.spec.name for tensor in facts.tensors}
    assert "tall" in {skip.what for skip in facts.coverage.skipped}


def test_a_lost_network_keeps_what_was_computed(varied: tuple[Path, Path]) -> None:
    with opened(*map(facts_of, varied)) as (alignment, _, _):
        names = [pair.name for pair in alignment.pairs if pair.name not in {"empty", "hollow"}]
    errors: dict[str, Exception] = dict.fromkeys(names[2:], HubUnreachable("no network."))
    facts, failing = run_failing(varied, errors)
    assert [tensor.spec.name for tensor in facts.tensors] == names[:2]
    assert failing.asked == names[:4]  # two failures in a row are enough
    skipped = {skip.what: skip.why for skip in facts.coverage.skipped}
    assert f"{names[4]} and {len(names) - 5} more tensors" in skipped
    assert facts.coverage.parameters_compared < facts.coverage.parameters_total


def test_one_failure_of_the_network_does_not_end_it(varied: tuple[Path, Path]) -> None:
    facts, _ = run_failing(varied, {"matrix": HubUnreachable("gone."), "vector": HubUnreachable("gone.")})
    assert {tensor.spec.name for tensor in facts.tensors} == {"tall", "scalar", "conv", "row", "tokens"}


def test_a_reader_that_gives_the_wrong_shape_is_not_trusted(varied: tuple[Path, Path]) -> None:
    class Short(Failing):
        def stream(self, wanted: Iterable[BlockRequest]) -> Iterator[Block]:
            for block in self._source.stream(wanted):
                yield replace(block, values=block.values[:, :-1]) if block.name == "matrix" else block

    class Ending(Failing):
        def stream(self, wanted: Iterable[BlockRequest]) -> Iterator[Block]:
            for block in self._source.stream(wanted):
                if block.name == "tall":
                    return
                yield block

    with opened(*map(facts_of, varied)) as (alignment, base, candidate):
        for source, name in ((Short(candidate, {}), "matrix"), (Ending(candidate, {}), "tall")):
            facts = measure(alignment, base, source)
            assert name in {skip.what for skip in facts.coverage.skipped}
            assert len(facts.tensors) == 6


def test_numbers_that_no_float_holds_are_a_skip(tmp_path: Path) -> None:
    def write(name: str) -> RepoFacts:
        (tmp_path / name).mkdir()
        tensors = {"ids": torch.arange(5), "w": torch.ones(3, 2)}
        save_file(tensors, tmp_path / name / "model.safetensors")
        return facts_of(tmp_path / name)

    with opened(write("base"), write("tuned")) as sources:
        facts = measure(*sources)
    assert [tensor.spec.name for tensor in facts.tensors] == ["w"]
    assert "I64 has no exact form" in facts.coverage.skipped[0].why


def test_other_errors_are_not_hidden(varied: tuple[Path, Path]) -> None:
    with pytest.raises(ZeroDivisionError):
        run_failing(varied, {"tall": ZeroDivisionError()})


def test_a_hub_that_dies_on_the_way(hub_server: LocalHub, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tensors = {f"layer.{i}.weight": (rng.standard_normal((256, 1024)), "F32") for i in range(40)}
    facts = write_model(tmp_path / "model", tensors)
    hub_server.add_repo("org/model", folder=tmp_path / "model")
    hub = quick_hub(hub_server)
    remote = open_source(collect(pinned(hub, "org/model"), hub), hub)
    with open_source(facts, None) as base, remote as candidate:
        hub_server.faults.add(Status(code=503), path="model.safetensors", from_byte=16 << 20, times=FOR_EVER)
        drift = measure(same_names(base, candidate), base, candidate)
    assert 0 < len(drift.tensors) < 40
    assert any("more tensors" in skip.what for skip in drift.coverage.skipped)
    assert drift.coverage.parameters_compared == 256 * 1024 * len(drift.tensors)


def test_skips_of_sources_are_passed_on_once(varied: tuple[Path, Path]) -> None:
    noted = Skip(what="notes.bin", why="format not read yet")
    with opened(*map(facts_of, varied)) as (alignment, base, candidate):
        facts = measure(replace(alignment, skips=(noted,)), base, candidate)
        assert facts.coverage.skipped.count(noted) == 1
        assert set(base.skips) | set(candidate.skips) <= set(facts.coverage.skipped)
