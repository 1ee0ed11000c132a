"""Safetensors files that lie: one honest file and a catalogue of damage done to it, each with a name.

Nothing here is random without a seed, so that a failure names the lie that was believed.
"""

import copy
import json
import random
import struct
from collections.abc import Callable, Iterator
from typing import Any

Declared = dict[str, Any]

TENSORS: dict[str, tuple[str, list[int], int]] = {
    "embeddings.weight": ("F32", [6, 4], 96),
    "encoder.weight": ("F16", [4, 4], 32),
    "encoder.bias": ("BF16", [4], 8),
    "counts": ("I64", [3], 24),
    "mask": ("BOOL", [5], 5),
    "eight": ("F8_E4M3", [7], 7),
    "empty": ("F32", [0, 4], 0),
    "scalar": ("F64", [], 8),
}
"""Name → dtype, shape, bytes."""


def honest_header() -> Declared:
    """The header of the honest file."""
    declared: Declared = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, (dtype, shape, size) in TENSORS.items():
        declared[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    return declared


def pack(header: str | bytes, data: bytes, *, length: int | None = None) -> bytes:
    """A file from its header and its data; ``length`` is what the first eight bytes say (the truth when None)."""
    raw = header.encode() if isinstance(header, str) else header
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def honest_data() -> bytes:
    """The tensor bytes of the honest file."""
    return random.Random(7).randbytes(sum(size for _, _, size in TENSORS.values()))


def honest_file() -> bytes:
    """The file that all lies are made from."""
    return pack(json.dumps(honest_header()), honest_data())


def lies() -> Iterator[tuple[str, bytes]]:
    """Every lie: its name and the whole file."""
    yield from _lengths()
    yield from _cut_files()
    yield from _wrong_entries()
    yield from _wrong_offsets()
    yield from _wrong_texts()
    yield from _flipped_bytes(100)


def _edited(edit: Callable[[Declared], None]) -> bytes:
    declared = copy.deepcopy(honest_header())
    edit(declared)
    return pack(json.dumps(declared), honest_data())


def _lengths() -> Iterator[tuple[str, bytes]]:
    raw, data = json.dumps(honest_header()), honest_data()
    true, size = len(raw), 8 + len(raw) + len(data)
    for length in (0, 1, 2, true - 8, true - 1, true + 1, true + 8, size - 8, size - 7, size):
        yield f"length {length}", pack(raw, data, length=length)
    for length in (100_000_000, 100_000_001, 1 << 31, 1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 8, (1 << 64) - 1):
        yield f"length {length}", pack(raw, data, length=length)


def _cut_files() -> Iterator[tuple[str, bytes]]:
    whole = honest_file()
    for kept in (0, 1, 7, 8, 9, 10, 50, len(whole) // 2, *range(len(whole) - 9, len(whole))):
        yield f"cut after {kept} bytes", whole[:kept]
    yield "one byte more", whole + b"\0"
    yield "eight bytes more", whole + bytes(8)
    yield "git lfs pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 1234\n"
    yield "a pickle", b"\x80\x02}q\x00." + bytes(64)
    yield "a zip", b"PK\x03\x04" + bytes(64)
    yield "only zeros", bytes(64)


def _wrong_entries() -> Iterator[tuple[str, bytes]]:
    def put(name: str, key: str, value: object) -> tuple[str, bytes]:
        return f"{name} {key} {str(value)[:40]}", _edited(lambda declared: declared[name].update({key: value}))

    shapes: tuple[object, ...] = (
        None, True, 4, "4", {}, [[6], 4], [6.0, 4], ["6", 4], [True, 24], [-6, -4], [-1, 4], [6, 5], [24, 4], [6],
        [1 << 62, 4], [1 << 64, 4], [10**30, 4], [1 << 32, 1 << 32], [0, 4], [1] * 65 + [6, 4], [None, 4],
    )  # fmt: skip
    for shape in shapes:
        yield put("embeddings.weight", "shape", shape)
    for shape in ([0, 1 << 40], [1 << 40, 0], [1 << 62, 0], [1 << 64, 0], [1 << 40, 1 << 40, 0]):
        yield put("empty", "shape", shape)
    for dtype in (None, 1, [], "", "f32", "F16", "F64", "BOOL", "F4", "I32", "F128", "F32\n", "ﬀ", "X" * 5000):
        yield put("embeddings.weight", "dtype", dtype)
    for name in ("embeddings.weight", "scalar", "empty"):
        for key in ("dtype", "shape", "data_offsets"):
            yield f"{name} without {key}", _edited(lambda declared, n=name, k=key: declared[n].pop(k))
        yield f"{name} is a list", _edited(lambda declared, n=name: declared.update({n: [1, 2]}))
        yield f"{name} is null", _edited(lambda declared, n=name: declared.update({n: None}))
        yield f"{name} is gone", _edited(lambda declared, n=name: declared.pop(n))
    for metadata in ([], "text", 1, {"a": 1}, {"a": None}, {"a": {"b": "c"}}, {"a": ["b"]}, {"a": True}):
        yield f"metadata {metadata}", _edited(lambda declared, m=metadata: declared.update({"__metadata__": m}))
    yield "long name", _edited(lambda declared: declared.update({"n" * 100_000: declared.pop("scalar")}))


def _wrong_offsets() -> Iterator[tuple[str, bytes]]:
    def put(name: str, offsets: object) -> tuple[str, bytes]:
        return f"{name} at {offsets}", _edited(lambda declared: declared[name].update({"data_offsets": offsets}))

    total = len(honest_data())
    for offsets in ([96, 0], [1, 97], [0, 95], [0, 97], [32, 128], [-96, 0], [total, total + 96], [0, 1 << 63]):
        yield put("embeddings.weight", offsets)
    for offsets in (None, 0, [], [0], [0, 96, 96], ["0", "96"], [0.0, 96.0], [False, 96], [[0], [96]], [0, 10**30]):
        yield put("embeddings.weight", offsets)
    for offsets in ([0, 8], [total - 7, total + 1], [total - 9, total - 1], [total, total + 8], [total - 8, total - 8]):
        yield put("scalar", offsets)
    for offsets in ([total + 1, total + 1], [1 << 40, 1 << 40], [50, 50], [0, 4]):
        yield put("empty", offsets)

    def swap(declared: Declared) -> None:
        first, second = declared["encoder.weight"], declared["encoder.bias"]
        first["data_offsets"], second["data_offsets"] = second["data_offsets"], first["data_offsets"]

    yield "swapped offsets", _edited(swap)
    yield (
        "a tensor twice at one place",
        _edited(lambda declared: declared["encoder.weight"].update(dtype="F32", data_offsets=[0, 64])),
    )
    yield "a hole", _edited(lambda declared: declared.pop("counts"))


def _wrong_texts() -> Iterator[tuple[str, bytes]]:
    data, honest = honest_data(), json.dumps(honest_header())
    size = len(data)
    one = f'"a":{{"dtype":"U8","shape":[{size}],"data_offsets":[0,{size}]}}'
    texts: dict[str, str | bytes] = {
        "not json": "x" * 40,
        "nothing": "",
        "spaces": " " * 40,
        "a list": "[" + honest + "]",
        "a text": '"' + "a" * 40 + '"',
        "leading space": " " + honest,
        "byte order mark": "\ufeff" + honest,
        "utf-16": honest.encode("utf-16"),
        "latin-1": honest.replace("scalar", "scalär").encode("latin-1"),
        "trailing text": honest + "x",
        "two objects": honest + honest,
        "trailing comma": honest[:-1] + ",}",
        "comment": honest[:-1] + "/* */}",
        "single quotes": honest.replace('"', "'"),
        "raw line break in a name": honest.replace("scalar", "sca\nlar"),
        "lone surrogate": honest.replace("scalar", "sca\\ud800lar"),
        "name twice": f"{{{one},{one}}}",
        "metadata twice": '{"__metadata__":{},"__metadata__":{},' + one + "}",
        "shape twice": "{" + one.replace('"shape"', '"shape":[1],"shape"') + "}",
        "offsets twice": "{" + one.replace('"data_offsets"', '"data_offsets":[0,1],"data_offsets"') + "}",
        "NaN": honest.replace("[6, 4]", "[NaN, 4]"),
        "Infinity": honest.replace("[6, 4]", "[Infinity, 4]"),
        "exponent": honest.replace("[0, 96]", "[0, 96e0]"),
        "minus zero": honest.replace("[0, 96]", "[-0, 96]"),
        "leading zero": honest.replace("[0, 96]", "[00, 96]"),
        "five thousand digits": honest.replace("[6, 4]", "[" + "9" * 5000 + ", 4]"),
        "deep lists": '{"a":' + "[" * 100_000 + "]" * 100_000 + "}",
        "deep objects": '{"a":' * 100_000 + "1" + "}" * 100_000,
        "a million lists": '{"a":[' + ",".join(["[]"] * 1_000_000) + "]}",
        "a million objects": '{"a":[' + ",".join(["{}"] * 1_000_000) + "]}",
        "six million numbers": '{"a":[' + "1," * 6_000_000 + "1]}",
        "seventeen million letters and an emoji": '{"__metadata__":{"a":"' + "x" * (17 << 20) + '\U0001f600"}}',
        "no tensors but bytes": "{}",
        "unclosed": honest[:-1],
        "null": "null" + " " * 40,
    }
    for name, text in texts.items():
        yield name, pack(text, data)


def _flipped_bytes(count: int) -> Iterator[tuple[str, bytes]]:
    whole = bytearray(honest_file())
    header_end = len(whole) - len(honest_data())
    chance = random.Random(11)
    for i in range(count):
        flipped = bytearray(whole)
        places = [chance.randrange(header_end) for _ in range(chance.choice((1, 1, 2, 5)))]
        for place in places:
            flipped[place] = chance.choice(b'"{}[]:,0123456789-.eE FnNtTxX\\\x00\x80\xff')
        yield f"flipped {i} at {places}", bytes(flipped)
