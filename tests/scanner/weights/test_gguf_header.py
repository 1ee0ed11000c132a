"""The GGUF header: the official reader's table from honest files, and a refusal from every lie."""

import struct
from pathlib import Path

import ggufs
import pico
import pytest
from gguf import GGUFReader

from scanner.errors import CorruptWeights
from scanner.weights.gguf_header import FIRST_READ_BYTES, GgufHeader, read_gguf_header


def parse(raw: bytes, size: int | None = None) -> GgufHeader:
    return read_gguf_header(lambda start, end: raw[start:end], "m.gguf", len(raw) if size is None else size)


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def tensor(name: str, shape: tuple[int, ...] = (32, 2), kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def file_of(
    *tensors: bytes,
    pairs: tuple[bytes, ...] = (),
    data: int = 256,
    version: int = 3,
    counts: tuple[int, int] | None = None,
) -> bytes:
    head = b"GGUF" + struct.pack("<IQQ", version, *(counts or (len(tensors), len(pairs))))
    head += b"".join(pairs) + b"".join(tensors)
    return head + b"\0" * (-len(head) % 32) + b"\0" * data


def pair(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


@pytest.mark.parametrize("alignment", [None, 64])
def test_an_honest_file_has_the_official_table(tmp_path: Path, alignment: int | None) -> None:
    file = tmp_path / "m.gguf"
    ggufs.write_gguf(pico.make_base("llama"), file, ggufs.encode_with("Q4_0"), alignment=alignment)
    header = parse(file.read_bytes())
    official = GGUFReader(file)
    assert header.facts["general.architecture"] == "llama"
    assert header.facts["llama.block_count"] == 2
    assert "tokenizer.ggml.tokens" not in header.facts
    assert [(t.name, t.kind, t.shape, t.start, t.end - t.start) for t in header.tensors] == [
        (t.name, t.tensor_type.name, tuple(int(n) for n in t.shape[::-1]), t.data_offset, t.n_bytes)
        for t in official.tensors
    ]


def test_a_header_longer_than_the_first_read_is_asked_for_in_steps() -> None:
    words = struct.pack("<IQ", 8, 200_000) + b"".join(text(f"word {i}") for i in range(200_000))
    raw = file_of(tensor("w"), pairs=(pair("tokenizer.ggml.tokens", 9, words),))
    asked = []

    def read(start: int, end: int) -> bytes:
        asked.append((start, end))
        return raw[start:end]

    assert [t.name for t in read_gguf_header(read, "m.gguf", len(raw)).tensors] == ["w"]
    assert asked[0] == (0, FIRST_READ_BYTES)
    assert len(asked) == 2
    assert asked[1][0] == FIRST_READ_BYTES


def test_an_unknown_kind_is_one_skip() -> None:
    header = parse(file_of(tensor("a"), tensor("b", kind=250, offset=256), tensor("c", offset=512), data=768))
    assert [t.name for t in header.tensors] == ["a", "c"]
    assert header.unread == ("b",)
    assert len(header.skips) == 1


LIES = {
    "another magic": b"GGML" + file_of(tensor("a"))[4:],
    "an old version": file_of(tensor("a"), version=1),
    "big endian": file_of(tensor("a"), version=3 << 24),
    "cut short in the header": file_of(tensor("a"))[:40],
    "cut short in the data": file_of(tensor("a"), data=255),
    "more tensors than there are": file_of(tensor("a"), counts=(3, 0)),
    "fewer tensors than there are": file_of(tensor("a"), tensor("b", offset=256), data=512, counts=(1, 0)),
    "a rest behind the tensors": file_of(tensor("a"), data=288),
    "absurdly many tensors": file_of(tensor("a"), counts=(1 << 60, 0)),
    "absurdly many pairs": file_of(tensor("a"), counts=(1, 1 << 60)),
    "a text longer than the file": file_of(tensor("a"), pairs=(pair("k", 8, struct.pack("<Q", 1 << 62)),)),
    "a list longer than the file": file_of(tensor("a"), pairs=(pair("k", 9, struct.pack("<IQ", 4, 1 << 61)),)),
    "a list of texts longer than the file": file_of(tensor("a"), pairs=(pair("k", 9, struct.pack("<IQ", 8, 1 << 40)),)),
    "a nested list": file_of(tensor("a"), pairs=(pair("k", 9, struct.pack("<IQ", 9, 1)),)),
    "a value of unknown type": file_of(tensor("a"), pairs=(pair("k", 77, b"\0" * 8),)),
    "a key twice": file_of(tensor("a"), pairs=(pair("k", 4, b"\0" * 4), pair("k", 4, b"\0" * 4))),
    "a key that is no text": file_of(tensor("a"), pairs=(text(b"\xff\xfe") + struct.pack("<II", 4, 0),)),
    "an alignment of 24": file_of(tensor("a"), pairs=(pair("general.alignment", 4, struct.pack("<I", 24)),)),
    "an alignment of 0": file_of(tensor("a"), pairs=(pair("general.alignment", 4, struct.pack("<I", 0)),)),
    "an alignment that is a text": file_of(tensor("a"), pairs=(pair("general.alignment", 8, text("32")),)),
    "a tensor twice": file_of(tensor("a"), tensor("a", offset=256), data=512),
    "a tensor over another": file_of(tensor("a"), tensor("b", offset=0), data=512),
    "a hole": file_of(tensor("a"), tensor("b", offset=512), data=1024),
    "an offset past the end": file_of(tensor("a", offset=1 << 40)),
    "five axes": file_of(tensor("a", shape=(1, 1, 1, 1, 1))),
    "an empty axis": file_of(tensor("a", shape=(0, 4))),
    "a shape larger than the file": file_of(tensor("a", shape=(1 << 40, 1 << 40))),
    "rows of half a block": file_of(tensor("a", shape=(48, 2), kind=2)),
    "a name of a megabyte": file_of(tensor("a" * (1 << 20))),
}


@pytest.mark.parametrize("raw", LIES.values(), ids=LIES.keys())
def test_a_lie_is_refused(raw: bytes) -> None:
    with pytest.raises(CorruptWeights, match=r"m\.gguf"):
        parse(raw)


def test_every_truncation_and_every_flipped_byte_is_refused_or_read() -> None:
    """No other error than ours, whatever is done to a small file."""
    raw = file_of(tensor("a"), pairs=(pair("general.alignment", 4, struct.pack("<I", 32)), pair("n", 8, text("x"))))
    for length in range(len(raw)):
        with pytest.raises(CorruptWeights):
            parse(raw[:length])
    for at in range(len(raw) - 256):
        for value in (0, 1, 0x7F, 0xFF):
            try:
                parse(raw[:at] + bytes([value]) + raw[at + 1 :])
            except CorruptWeights:
                continue
