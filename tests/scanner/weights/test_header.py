"""Headers: real files read as the official library reads them, and no lie is believed."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lyingheaders import TENSORS, honest_data, honest_file, honest_header, lies, pack
from safetensors.numpy import save as save_numpy
from safetensors.torch import save, save_file

from scanner.errors import CorruptWeights
from scanner.records import TensorMeta
from scanner.weights.header import MAX_NAME_CHARS, MAX_TENSORS, Header, header_bytes, parse_header

Table = dict[str, tuple[str, tuple[int, ...], bytes]]


def read(whole: bytes, file: str = "model.safetensors") -> Header:
    length = header_bytes(whole[:8], file, len(whole))
    return parse_header(whole[8 : 8 + length], file, len(whole))


def table_of(header: Header, whole: bytes) -> Table:
    return {t.name: (t.dtype, t.shape, whole[t.start : t.end]) for t in header.tensors}


def official_table(whole: bytes) -> Table:
    return {
        name: (entry["dtype"], tuple(entry["shape"]), bytes(entry["data"]))
        for name, entry in safetensors.deserialize(whole)
    }


def test_the_honest_file_reads_as_the_official_library_reads_it() -> None:
    whole = honest_file()
    header = read(whole)
    assert table_of(header, whole) == official_table(whole)
    assert [tensor.name for tensor in header.tensors] == list(TENSORS)
    assert header.skips == ()
    assert header.data_start == len(whole) - len(honest_data())


ALL_LIES = list(lies())


def test_there_are_many_lies_and_all_are_different() -> None:
    files = [whole for _, whole in ALL_LIES]
    assert len(files) >= 200
    assert len(set(files)) >= len(files) - 2  # two flips may write what was there before


@pytest.mark.parametrize("whole", [pytest.param(whole, id=name[:60]) for name, whole in ALL_LIES])
def test_no_lie_is_believed(whole: bytes) -> None:
    assert_refused_or_true(whole)


def assert_refused_or_true(whole: bytes) -> None:
    """Refused in one sentence, or a table that agrees with the official library on every tensor it gives."""
    try:
        header = read(whole)
    except CorruptWeights as error:
        sentence = str(error)
        assert "'model.safetensors'" in sentence
        assert sentence.endswith(".")
        assert len(sentence) < 500
        assert sentence.isprintable()
        return
    if header.skips:
        # The library refuses unknown dtypes outright; what is left must still be where the header put it.
        assert header.unread
        declared = json.loads(whole[8 : header.data_start])
        for tensor in header.tensors:
            assert [tensor.start - header.data_start, tensor.end - header.data_start] == declared[tensor.name][
                "data_offsets"
            ]
        assert {t.name for t in header.tensors} | set(header.unread) == declared.keys() - {"__metadata__"}
        return
    assert table_of(header, whole) == official_table(whole)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 700), st.integers(0, 20), st.binary(max_size=20)), min_size=1, max_size=3),
)
def test_no_random_damage_is_believed(edits: list[tuple[int, int, bytes]]) -> None:
    whole = honest_file()
    for start, removed, inserted in edits:
        whole = whole[:start] + inserted + whole[start + removed :]
    assert_refused_or_true(whole)


BOUNDARIES = sorted({at for entry in list(honest_header().values())[1:] for at in entry["data_offsets"]} | {-1, 95, 97})


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(list(TENSORS)),
    st.lists(st.integers(0, 40), max_size=4),
    st.sampled_from(["F64", "F32", "BF16", "U8", "BOOL", "F8_E5M2", "C64", "F4", "F6_E2M3", "Q8"]),
    st.sampled_from(BOUNDARIES),
    st.sampled_from(BOUNDARIES),
)
def test_no_rewritten_entry_is_believed(name: str, shape: list[int], dtype: str, start: int, end: int) -> None:
    declared = honest_header()
    declared[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    assert_refused_or_true(pack(json.dumps(declared), honest_data()))


def test_every_dtype_that_torch_saves_is_read(tmp_path: Path) -> None:
    dtypes = [
        torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e4m3fnuz,
        torch.float8_e5m2, torch.float8_e5m2fnuz, torch.float8_e8m0fnu, torch.bool, torch.int8, torch.uint8,
        torch.int16, torch.uint16, torch.int32, torch.uint32, torch.int64, torch.uint64, torch.complex64,
    ]  # fmt: skip
    file = tmp_path / "all.safetensors"
    save_file({str(dtype): torch.zeros(3, 5, dtype=torch.uint8).to(dtype) for dtype in dtypes}, file)
    whole = file.read_bytes()
    header = read(whole)
    assert table_of(header, whole) == official_table(whole)
    assert len(header.tensors) == len(dtypes)
    assert header.skips == ()


def test_packed_and_unknown_dtypes_are_skips_and_the_rest_is_read() -> None:
    declared = {
        "known": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
        "packed": {"dtype": "F4", "shape": [4], "data_offsets": [8, 10]},
        "odd": {"dtype": "Q8\x1b[31m", "shape": [4], "data_offsets": [10, 20]},
    }
    header = read(pack(json.dumps(declared), bytes(20)))
    assert [tensor.name for tensor in header.tensors] == ["known"]
    assert header.unread == ("packed", "odd")
    assert [skip.what for skip in header.skips] == ["'packed' in 'model.safetensors'", "'odd' in 'model.safetensors'"]
    assert "packs several values" in header.skips[0].why
    assert header.skips[1].why == r"dtype 'Q8\x1b[31m' is not understood"


def test_a_packed_dtype_of_the_wrong_size_is_a_lie() -> None:
    declared = {"packed": {"dtype": "F4", "shape": [5], "data_offsets": [0, 2]}}
    with pytest.raises(CorruptWeights, match="contradict"):
        read(pack(json.dumps(declared), bytes(2)))


def test_many_unknown_dtypes_make_few_skips() -> None:
    declared = {f"t{i}": {"dtype": f"X{i}", "shape": [], "data_offsets": [i, i + 1]} for i in range(1000)}
    header = read(pack(json.dumps(declared), bytes(1000)))
    assert len(header.unread) == 1000
    assert len(header.skips) == 11


def test_names_are_kept_verbatim() -> None:
    names = ["../../etc/passwd", "a\nb", "\x1b[2J", "<script>", "\u202egnp", "", "weight", "日本"]
    whole = save({name: torch.zeros(1, dtype=torch.float32) for name in names})
    assert {tensor.name for tensor in read(whole).tensors} == set(names)


def test_names_are_bounded() -> None:
    fits = save({"n" * MAX_NAME_CHARS: torch.zeros(1)})
    assert len(read(fits).tensors) == 1
    with pytest.raises(CorruptWeights, match=r"1,025 characters"):
        read(save({"n" * (MAX_NAME_CHARS + 1): torch.zeros(1)}))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("git lfs pointer", "git lfs pull"),
        ("length 100000001", "over the format's limit"),
        ("a pickle", "over the format's limit"),
        ("length 2147483648", "over the format's limit"),
        ("cut after 8 bytes", "cut short"),
        ("cut after 0 bytes", "too few"),
        ("one byte more", "belong to no tensor"),
        ("a hole", "in no tensor"),
        ("embeddings.weight at [0, 97]", "contradict"),
        ("scalar at [0, 8]", "overlap"),
        ("name twice", "names 'a' twice"),
        ("shape twice", "names 'shape' twice"),
        ("deep lists", "nested too deeply"),
        ("a million lists", "more entries"),
        ("a million objects", "more entries"),
        ("six million numbers", "more entries"),
        ("seventeen million letters and an emoji", "not plain ASCII"),
        ("utf-16", "is not a JSON object"),
        ("latin-1", "not UTF-8"),
        ("lone surrogate", "half a character"),
        ("trailing comma", "not valid JSON"),
        ("minus zero", "no size or offset"),
        ("embeddings.weight at [96, 0]", "not a start and an end"),
        ("empty shape [1099511627776, 0]", "larger than the file"),
    ],
)
def test_each_kind_of_lie_has_its_own_sentence(name: str, says: str) -> None:
    whole = dict(ALL_LIES)[name]
    with pytest.raises(CorruptWeights, match=says):
        read(whole)


def test_ten_thousand_tensors_are_no_trouble() -> None:
    """Eight times the tensors take eight times the processor time; a quadratic check would take 64 times."""

    def cost(count: int) -> float:
        tensors = {f"layers.{i}.mlp.experts.0.weight": np.zeros((1, 2), np.float32) for i in range(count)}
        whole = save_numpy(tensors)
        costs = []
        for _ in range(3):
            before = time.process_time()
            header = read(whole)
            costs.append(time.process_time() - before)
        assert {tensor.name for tensor in header.tensors} == set(tensors)
        return min(costs)

    assert cost(10_000) < 30 * cost(1_250)


def test_more_tensors_than_any_model_has_are_refused() -> None:
    entry = '{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
    raw = "{" + ",".join(f'"{i}":{entry}' for i in range(MAX_TENSORS)) + "}"
    with pytest.raises(CorruptWeights, match="more entries"):
        read(pack(raw, b""))


def test_metadata_may_hold_long_texts_full_of_punctuation() -> None:
    """Training tools store whole JSON documents there as text."""
    tags = json.dumps({f"tag {i}": {"count": [i, i]} for i in range(20_000)})
    whole = save({"weight": torch.zeros(2)}, metadata={"ss_tag_frequency": tags})
    assert [tensor.name for tensor in read(whole).tensors] == ["weight"]


def test_an_empty_table_is_a_table() -> None:
    header = read(pack("{}", b""))
    assert header.tensors == ()
    assert header.skips == ()


def test_offsets_count_from_the_beginning_of_the_file() -> None:
    whole = save({"a": torch.arange(3, dtype=torch.uint8)})
    (tensor,) = read(whole).tensors
    assert tensor == TensorMeta(
        name="a", dtype="U8", shape=(3,), file="model.safetensors", start=len(whole) - 3, end=len(whole)
    )
    assert whole[tensor.start : tensor.end] == b"\0\1\2"
