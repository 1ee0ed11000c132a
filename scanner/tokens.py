"""Reads the vocabulary of a repository as data: no tokenizer is run, no code loaded, hostile tokens stay tokens."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any, Never

import numpy as np

from scanner.errors import CouldNotConclude, FileNotFound
from scanner.records import F64, RepoFacts, TokenTable
from scanner.side.reading import TextReader
from scanner.token_models import (
    MAX_TOKENS,
    BadVocabulary,
    Vocabulary,
    bpe_vocabulary,
    clean_token,
    is_control,
    model_vocabulary,
    texts_by_id,
    wordpiece_vocabulary,
)

MAX_FILE_BYTES = 64 << 20
"""Of one tokenizer file; the largest in use have about 34 MB."""
MAX_COMMAS = 6_000_000
"""Separators in a JSON file: what the parser builds from it is bounded before it begins."""
_Reader = Callable[[str], str]


def read_tokens(facts: RepoFacts, hub: TextReader) -> TokenTable | None:
    """Return the tokens of a repository by id, or None when it has no tokenizer files.

    The first of these that is there: tokenizer.json (WordPiece, BPE, Unigram), vocab.txt, vocab.json with merges.txt.
    Byte-level texts are decoded for people (``Ġfoo`` → " foo"). A token is ``special`` only when it also looks like
    a control token: a flag alone would let anyone take an ordinary word out of sight. Added tokens count as rarest.

    Raises:
        CouldNotConclude: there are tokenizer files but none that can be read (too large, broken, sentencepiece only),
            or the network failed; no token is known then, and none is thereby harmless.
    """

    def read(path: str) -> str:
        return hub.read_text(facts.ref, path, limit_bytes=MAX_FILE_BYTES)

    try:
        for path, parse in _FORMATS.items():
            if facts.file(path) is not None:
                return parse(read)
    except FileNotFound:
        return None
    except BadVocabulary as error:
        raise CouldNotConclude(f"The tokenizer of {facts.ref.name} {error}; its tokens are unknown.") from error
    if any(entry.path.endswith((".model", ".tiktoken")) for entry in facts.files):
        raise CouldNotConclude(
            f"{facts.ref.name} has its vocabulary in a sentencepiece or tiktoken file only, which is not read yet."
        )
    return None


def read_pair_tokens(candidate: RepoFacts, base: RepoFacts | None, hub: TextReader) -> TokenTable | None:
    """Return the candidate's tokens with the frequencies that the *base's* tokenizer implies for the common ids.

    Frequencies excuse drift, and the candidate's own files are its author's to write; the base's are not. Where both
    sides have the same file (by the hash that the listing gives) it is read once. A candidate without a tokenizer
    borrows the base's. When only the base's cannot be read, the candidate's own frequencies stand.

    Raises:
        CouldNotConclude: as ``read_tokens``, for the candidate.
    """
    own = read_tokens(candidate, hub)
    if base is None or (own is not None and _same_tokenizer(candidate, base)):
        return own
    try:
        theirs = read_tokens(base, hub)
    except CouldNotConclude:
        return own
    if own is None or theirs is None or theirs.expected_log_frequency is None:
        return theirs if own is None else own
    common = min(len(own.texts), len(theirs.texts))
    rest = own.expected_log_frequency
    if rest is None:
        rest = np.full(len(own.texts), theirs.expected_log_frequency.min(initial=0.0))
    return replace(own, expected_log_frequency=np.concatenate([theirs.expected_log_frequency[:common], rest[common:]]))


def _same_tokenizer(candidate: RepoFacts, base: RepoFacts) -> bool:
    """True when the file that ``read_tokens`` reads has one known hash on both sides."""
    for path in _FORMATS:
        mine, theirs = candidate.file(path), base.file(path)
        if mine is not None:
            known = theirs is not None and (mine.blob_id or mine.sha256) is not None
            return bool(known and theirs and (mine.blob_id, mine.sha256) == (theirs.blob_id, theirs.sha256))
    return False


def _from_tokenizer_json(read: _Reader) -> TokenTable:
    content = parse_tokenizer(read("tokenizer.json"))
    vocabulary = model_vocabulary(content.get("model"))
    added = content.get("added_tokens")
    entries = [entry for entry in added if isinstance(entry, Mapping)] if isinstance(added, list) else []
    return _table(vocabulary, entries, byte_level=_names_byte_level(content))


def _from_vocab_txt(read: _Reader) -> TokenTable:
    lines = read("vocab.txt").removeprefix("\ufeff").replace("\r\n", "\n").removesuffix("\n").split("\n")
    if len(lines) > MAX_TOKENS:
        raise BadVocabulary(f"has {len(lines):,} tokens")
    texts = [clean_token(line) for line in lines]
    if any(text.startswith("##") for text in texts):
        return _table(wordpiece_vocabulary(texts), None, byte_level=False)
    return _table(Vocabulary(kind="unknown", texts=texts, expected_log_frequency=None), None, byte_level=False)


def _from_vocab_json(read: _Reader) -> TokenTable:
    texts = texts_by_id(parse_tokenizer(read("vocab.json")))
    try:
        lines = read("merges.txt").split("\n")
    except FileNotFound:
        lines = []
    merges = [(a, b) for a, space, b in (line.rstrip("\r").partition(" ") for line in lines) if space and b]
    merges = [pair for pair in merges if pair[0] != "#version:"]
    return _table(bpe_vocabulary(texts, merges), None, byte_level=any(text.startswith("Ġ") for text in texts))


_FORMATS: Mapping[str, Callable[[_Reader], TokenTable]] = {
    "tokenizer.json": _from_tokenizer_json,
    "vocab.txt": _from_vocab_txt,
    "vocab.json": _from_vocab_json,
}


def parse_tokenizer(text: str) -> dict[str, Any]:
    """Parse a tokenizer file, a JSON object, within bounds.

    Raises:
        BadVocabulary: it is none.
    """
    if text.count(",") > MAX_COMMAS or text.count("[") > MAX_COMMAS or text.count("{") > MAX_COMMAS:
        raise BadVocabulary("has more entries than any real one")
    try:
        content = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise BadVocabulary("is not valid JSON") from error
    if not isinstance(content, dict):
        raise BadVocabulary("is not a JSON object")
    return content


def _refuse(name: str) -> Never:
    raise ValueError(name)


def _names_byte_level(content: Mapping[str, Any]) -> bool:
    """Whether a ByteLevel step stands in the pre-tokenizer or the decoder, alone or in a sequence."""
    steps = [content.get("pre_tokenizer"), content.get("decoder")]
    for step in list(steps):
        if isinstance(step, Mapping):
            inner = step.get("pretokenizers", step.get("decoders"))
            steps += inner if isinstance(inner, list) else []
    return any(isinstance(step, Mapping) and step.get("type") == "ByteLevel" for step in steps)


def _table(vocabulary: Vocabulary, added: list[Mapping[str, Any]] | None, *, byte_level: bool) -> TokenTable:
    """Put the added tokens over the model's own and mark the control tokens; None when the format has no flags."""
    texts = list(map(_readable, vocabulary.texts)) if byte_level else list(vocabulary.texts)
    flagged: set[int] = set()
    for entry in added or ():
        token, text = entry.get("id"), entry.get("content")
        if not isinstance(text, str) or not isinstance(token, int) or not 0 <= token < MAX_TOKENS:
            raise BadVocabulary("adds a token without a text or without a usable id")
        texts += [""] * (token + 1 - len(texts))
        texts[token] = clean_token(text)
        if entry.get("special") is True:
            flagged.add(token)
    special = [is_control(text) and (added is None or token in flagged) for token, text in enumerate(texts)]
    return TokenTable(
        kind=vocabulary.kind,
        texts=tuple(texts),
        expected_log_frequency=_padded(vocabulary, len(texts)),
        special=np.array(special, dtype=np.bool_),
    )


def _padded(vocabulary: Vocabulary, length: int) -> F64 | None:
    """The expected log frequency of every id; ids beyond the model's own count as its rarest."""
    expected = vocabulary.expected_log_frequency
    if expected is None:
        return None
    return np.concatenate([expected, np.full(length - len(expected), expected.min())])


def _readable(text: str) -> str:
    """A byte-level token as text; bytes that are no UTF-8 by themselves are written out as ``\\xNN``."""
    table = _bytes_of_letters()
    codes = [table.get(letter) for letter in text]
    if any(code is None for code in codes):
        return text
    return bytes(code for code in codes if code is not None).decode("utf-8", "backslashreplace")


@cache
def _bytes_of_letters() -> Mapping[str, int]:
    """Letter → byte of the byte-level alphabet: printable Latin-1 stands for itself, the rest follows from U+0100.

    Radford et al. 2019 (GPT-2), section 2.2.
    """
    own = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in own]
    return {chr(byte): byte for byte in own} | {chr(256 + i): byte for i, byte in enumerate(others)}
