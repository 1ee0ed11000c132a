"""The index of a sharded checkpoint against its shards."""

import json

import pytest
import torch
from lyingheaders import pack
from safetensors.torch import save

from scanner.errors import CorruptWeights
from scanner.weights.header import MAX_TENSORS, Header, header_bytes, parse_header
from scanner.weights.shards import collect_headers, join_tables, read_index

INDEX = "model.safetensors.index.json"


def header_of(whole: bytes, file: str) -> Header:
    length = header_bytes(whole[:8], file, len(whole))
    return parse_header(whole[8 : 8 + length], file, len(whole))


def headers(**tensors: list[str]) -> dict[str, Header]:
    return {
        f"{file}.safetensors": header_of(save({name: torch.zeros(2) for name in names}), f"{file}.safetensors")
        for file, names in tensors.items()
    }


def test_an_index_is_its_weight_map() -> None:
    weight_map = {"x": "a.safetensors", "y": "sub/b.safetensors"}
    raw = json.dumps({"metadata": {"total_size": 12.0, "delta": -1}, "weight_map": weight_map}).encode()
    assert read_index(INDEX, raw) == weight_map


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"null",
        b"\xff\xfe{}",
        b"{}",
        b'{"weight_map": null}',
        b'{"weight_map": {}}',
        b'{"weight_map": []}',
        b'{"weight_map": {"x": 1}}',
        b'{"weight_map": {"x": null}}',
        b'{"weight_map": {"x": ["a.safetensors"]}}',
        b'{"weight_map": {"x": "a.safetensors", "x": "b.safetensors"}}',
        b'{"weight_map": {"x": "a.safetensors"}, "weight_map": {"x": "b.safetensors"}}',
        b'{"weight_map": {"x": "../a.safetensors"}}',
        b'{"weight_map": {"x": "b/../../a.safetensors"}}',
        b'{"weight_map": {"x": "/etc/a.safetensors"}}',
        b'{"weight_map": {"x": "..\\\\a.safetensors"}}',
        b'{"weight_map": {"x": "a\\u0000.safetensors"}}',
        b'{"weight_map": {"x": "a\\n.safetensors"}}',
        b'{"weight_map": {"x": ""}}',
        b'{"weight_map": {"x": "pytorch_model.bin"}}',
        b'{"weight_map": {"x": "a\\ud800.safetensors"}}',
        b'{"weight_map": {"x\\ud800": "a.safetensors"}}',
        b'{"weight_map": {"x": "a.safetensors"}, "metadata": {"total_size": NaN}}',
        b'{"weight_map": {"x": "a.safetensors"}',
        b'{"a":' * 100_000,
        b'{"a":[' + b"[]," * 2_000 + b"[]]}",
    ],
)
def test_an_index_that_lies_is_refused(raw: bytes) -> None:
    with pytest.raises(CorruptWeights, match=r"^The index 'model\.safetensors\.index\.json' ") as caught:
        read_index(INDEX, raw)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


def test_tables_of_several_files_are_joined_in_their_order() -> None:
    table, skips = join_tables(
        headers(a=["x", "w"], b=["y"]), {"x": "a.safetensors", "w": "a.safetensors", "y": "b.safetensors"}
    )
    assert {name: meta.file for name, meta in table.items()} == {
        "w": "a.safetensors",
        "x": "a.safetensors",
        "y": "b.safetensors",
    }
    assert skips == ()


def test_a_tensor_in_two_files_is_left_out() -> None:
    table, skips = join_tables(headers(a=["x", "y"], b=["y"]), {"x": "a.safetensors", "y": "a.safetensors"})
    assert list(table) == ["x"]
    assert [(skip.what, skip.why) for skip in skips] == [
        ("'y'", "in two files, so the loader decides which one counts")
    ]


def test_a_tensor_in_two_files_is_left_out_even_if_one_of_them_is_unreadable() -> None:
    packed = pack(json.dumps({"y": {"dtype": "F4", "shape": [2], "data_offsets": [0, 1]}}), b"\0")
    both = headers(a=["x", "y"]) | {"b.safetensors": header_of(packed, "b.safetensors")}
    table, skips = join_tables(both, {})
    assert list(table) == ["x"]
    assert [skip.why for skip in skips][-1] == "in two files, so the loader decides which one counts"


def test_the_index_and_the_files_disagree() -> None:
    index = {"x": "b.safetensors", "gone": "a.safetensors", "y": "b.safetensors", "lost": "missing.safetensors"}
    table, skips = join_tables(headers(a=["x"], b=["y", "extra"]), index)
    assert list(table) == ["x", "extra", "y"]
    assert table["x"].file == "a.safetensors"
    assert [(skip.what, skip.why) for skip in skips] == [
        ("'gone'", "the index names it, but no file holds it"),
        ("'x'", "the index gives another file for it; read where it lies, as loaders do"),
        ("'extra'", "in a file but not in the index; read all the same, as loaders do"),
    ]


def test_an_unreadable_tensor_is_not_called_absent() -> None:
    packed = pack(json.dumps({"y": {"dtype": "F4", "shape": [2], "data_offsets": [0, 1]}}), b"\0")
    _, skips = join_tables({"b.safetensors": header_of(packed, "b.safetensors")}, {"y": "b.safetensors"})
    assert len(skips) == 1
    assert "F4" in skips[0].why


def test_without_an_index_nothing_disagrees() -> None:
    table, skips = join_tables(headers(a=["x"]), {})
    assert list(table) == ["x"]
    assert skips == ()


def test_headers_are_put_in_the_order_of_the_loader() -> None:
    made = headers(a=["x"], b=["y"], c=["z"])
    shuffled = [(file, made[file]) for file in ("c.safetensors", "a.safetensors", "b.safetensors")]
    assert list(collect_headers(shuffled)) == ["a.safetensors", "b.safetensors", "c.safetensors"]


def test_the_tensors_of_all_files_together_are_bounded() -> None:
    one = Header(tensors=(), unread=("x",) * (MAX_TENSORS // 8), skips=(), data_start=8)
    read = 0

    def files():
        nonlocal read
        for i in range(1000):
            read += 1
            yield f"{i}.safetensors", one

    with pytest.raises(CorruptWeights, match="no real model"):
        collect_headers(files())
    assert read == 9
