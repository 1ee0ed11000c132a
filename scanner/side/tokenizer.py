"""The candidate's tokenizer against the base's, as data: no tokenizer is built or run.

A tokenizer decides which rows of the embedding a text selects. Swapping two ids, rewriting a word before it is cut up,
or putting a token before every input changes what the model reads, and leaves the weights as they were.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from scanner.errors import HubAuditError
from scanner.records import RepoFacts, Skip
from scanner.side.reading import TextReader, inherited
from scanner.side.records import AddedEntry, Reassigned, Step, StepChange, TokenizerFacts
from scanner.token_models import BadVocabulary, clean_token, is_reserved, model_vocabulary
from scanner.tokens import MAX_FILE_BYTES, parse_tokenizer

FILE: Final = "tokenizer.json"
OTHER_FILES: Final = (
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
)
"""What slower tokenizers load; compared by their hashes where there is no tokenizer.json."""
MAX_LISTED: Final = 20
MAX_SHOWN: Final = 200
MAX_DEPTH: Final = 40
_STEPS: Final[tuple[Step, ...]] = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
_SYNTAX: Final = re.compile(r"\\[pP]\{[^}]*\}|\\.|\[[^\]]*\]|\(\?[a-z!:=<]+")
_WORD: Final = re.compile(r"[^\W\d_]{3,}")
_REWRITING: Final = frozenset({"Replace", "Split", "Prepend"})


def compare_tokenizers(
    candidate: RepoFacts, base: RepoFacts | None, reader: TextReader, skips: list[Skip]
) -> TokenizerFacts | None:
    """Hold the candidate's tokenizer.json against the base's; None when there is nothing to compare.

    Equal hashes in the listings end the comparison without a request. What cannot be read is a skip.
    """
    if base is None:
        return None
    if candidate.file(FILE) is None:
        _skip_others(candidate, base, skips)
        return None
    if inherited(FILE, candidate, base):
        return TokenizerFacts(file=FILE, state="same")
    if base.file(FILE) is None:
        skips.append(Skip(what=FILE, why=f"{base.ref.name} has no such file, so the tokenizers were not compared."))
        return None
    try:
        own, theirs = (reader.read_text(side.ref, FILE, limit_bytes=MAX_FILE_BYTES) for side in (candidate, base))
        if own == theirs:
            return TokenizerFacts(file=FILE, state="same")
        return _compare(_Tokenizer(parse_tokenizer(own)), _Tokenizer(parse_tokenizer(theirs)))
    except BadVocabulary as error:
        skips.append(Skip(what=FILE, why=f"A tokenizer {error}, so the two were not compared."))
    except HubAuditError as error:
        skips.append(Skip(what=FILE, why=f"The tokenizers were not compared: {error}"))
    except RecursionError:
        skips.append(Skip(what=FILE, why="It is nested too deeply, so the tokenizers were not compared."))
    return None


def _skip_others(candidate: RepoFacts, base: RepoFacts, skips: list[Skip]) -> None:
    """Files that only their hash is known of: a different one was not looked into."""
    both = [path for path in OTHER_FILES if candidate.file(path) is not None and base.file(path) is not None]
    why = "It may differ from the base's, and such files are not compared."
    skips.extend(Skip(what=path, why=why) for path in both if not inherited(path, candidate, base))


class _Tokenizer:
    """One tokenizer.json, taken apart."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        self.content = content
        model = content.get("model")
        self.model: Mapping[str, Any] = model if isinstance(model, Mapping) else {}
        self.texts = list(model_vocabulary(model).texts)
        listed = content.get("added_tokens")
        self.added = [entry for entry in listed if isinstance(entry, Mapping)] if isinstance(listed, list) else []
        self.special: set[int] = set()
        for entry in self.added:
            token, text = entry.get("id"), entry.get("content")
            if not isinstance(token, int) or isinstance(token, bool) or not 0 <= token < 2_000_000:
                raise BadVocabulary("adds a token without a usable id")
            if not isinstance(text, str):
                raise BadVocabulary("adds a token without a text")
            self.texts += [""] * (token + 1 - len(self.texts))
            self.texts[token] = clean_token(text)
            if entry.get("special") is True:
                self.special.add(token)

    def merges(self) -> list[str] | None:
        """The merges, in one spelling."""
        listed = self.model.get("merges")
        if not isinstance(listed, list):
            return None
        return [item if isinstance(item, str) else " ".join(map(str, item)) for item in listed]

    def scores(self) -> Mapping[str, float]:
        """Text → log-probability, for Unigram."""
        listed = self.model.get("vocab")
        return {str(text): score for text, score in listed} if isinstance(listed, list) else {}


def _compare(own: _Tokenizer, theirs: _Tokenizer) -> TokenizerFacts:
    common = min(len(own.texts), len(theirs.texts))
    moved = [i for i in range(common) if own.texts[i] != theirs.texts[i] and theirs.texts[i]]
    known = set(theirs.texts)
    fresh = [i for i, text in enumerate(own.texts) if text and text not in known]
    shadowed = list(_shadowed(own, theirs))
    steps = [*_step_changes(own, theirs), *_model_changes(own, theirs), *_newly_special(own, theirs)]
    if len(own.texts) < len(theirs.texts):
        steps.append(
            StepChange(step="vocabulary", base=f"{len(theirs.texts):,} ids", candidate=f"{len(own.texts):,} ids")
        )
    differs = moved or fresh or steps or shadowed
    return TokenizerFacts(
        file=FILE,
        state="changed" if differs else "whitespace",
        compared=common,
        reassigned_count=len(moved) + len(shadowed),
        reassigned=(
            *shadowed[:MAX_LISTED],
            *(
                Reassigned(id=i, base=theirs.texts[i], candidate=own.texts[i])
                for i in _ordinary_first(moved, own, theirs)
            ),
        ),
        added_count=len(fresh),
        added=tuple(_entry(i, own) for i in fresh[:MAX_LISTED]),
        steps=tuple(steps[:MAX_LISTED]),
    )


def _shadowed(own: _Tokenizer, theirs: _Tokenizer) -> Iterator[Reassigned]:
    """Tokens of the base that an added token with another id takes the text from: added tokens are matched first."""
    ids = {text: i for i, text in reversed(list(enumerate(theirs.texts))) if text}
    for entry in own.added:
        text = clean_token(entry["content"])
        if text in ids and entry["id"] >= len(theirs.texts):
            yield Reassigned(id=ids[text], base=text, candidate="")


def _newly_special(own: _Tokenizer, theirs: _Tokenizer) -> Iterator[StepChange]:
    """Ordinary tokens that are now special: they vanish from decoded answers."""
    known = {theirs.texts[i] for i in theirs.special}
    common = set(theirs.texts)
    words = {own.texts[i] for i in own.special} - known
    hidden = sorted(word for word in words if word in common and not is_reserved(word))
    if hidden:
        yield StepChange(
            step="vocabulary", base="ordinary tokens", candidate="special tokens", words=tuple(hidden[:MAX_LISTED])
        )


def _ordinary_first(moved: Sequence[int], own: _Tokenizer, theirs: _Tokenizer) -> list[int]:
    """Ids whose old or new text is an ordinary word lead: what is cut off matters least."""

    def weight(token: int) -> tuple[bool, bool, int]:
        return is_reserved(theirs.texts[token]), is_reserved(own.texts[token]), token

    return sorted(moved, key=weight)[:MAX_LISTED]


def _entry(token: int, own: _Tokenizer) -> AddedEntry:
    text = own.texts[token]
    return AddedEntry(id=token, text=text, special=token in own.special, control=is_reserved(text))


def _step_changes(own: _Tokenizer, theirs: _Tokenizer) -> Iterator[StepChange]:
    for step in _STEPS:
        mine, base = own.content.get(step), theirs.content.get(step)
        if _canonical(mine) == _canonical(base):
            continue
        if step == "post_processor":
            words = _put_tokens(mine, own) - _put_tokens(base, theirs)
        else:
            words = _rule_words(mine) - _rule_words(base)
        yield StepChange(step=step, base=_shown(base), candidate=_shown(mine), words=tuple(sorted(words)[:MAX_LISTED]))


def _model_changes(own: _Tokenizer, theirs: _Tokenizer) -> Iterator[StepChange]:
    """Merges in another order cut words elsewhere; scores decide between ways of cutting."""
    mine, base = own.merges(), theirs.merges()
    if mine is not None and base is not None and mine[: len(base)] != base:
        gone, new = set(base) - set(mine), set(mine) - set(base)
        yield StepChange(
            step="merges",
            base=f"{len(base):,} merges, {len(gone):,} of them gone",
            candidate=f"{len(mine):,} merges, {len(new):,} of them new" + ("" if gone or new else ", in another order"),
        )
    scores, known = own.scores(), theirs.scores()
    changed = [text for text in known.keys() & scores.keys() if scores[text] != known[text]]
    if changed:
        yield StepChange(
            step="scores",
            base=f"{len(known):,} scores",
            candidate=f"{len(changed):,} of them differ",
            words=tuple(sorted(changed)[:MAX_LISTED]) if len(changed) < MAX_LISTED else (),
        )


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _shown(value: Any) -> str:
    """What a step is made of: its type, and those of its parts."""
    kinds = [str(part.get("type", "?"))[:40] for part in _parts(value)]
    return " + ".join(kinds)[:MAX_SHOWN] if kinds else "none"


def _parts(value: Any, depth: int = 0) -> Iterator[Mapping[str, Any]]:
    """The steps of a sequence, flat."""
    if not isinstance(value, Mapping) or depth > MAX_DEPTH:
        return
    for key in ("normalizers", "pretokenizers", "processors", "decoders"):
        inner = value.get(key)
        if isinstance(inner, list):
            for part in inner:
                yield from _parts(part, depth + 1)
            return
    yield value


def _rule_words(value: Any) -> set[str]:
    """The texts in rules that replace, remove or prepend, where they hold a word."""
    found = set()
    for part in _parts(value):
        kind = part.get("type")
        if kind not in _REWRITING or (kind == "Split" and part.get("behavior") != "Removed"):
            continue
        pattern = part.get("pattern")
        texts = [part.get("content"), part.get("prepend")]
        texts += list(pattern.values()) if isinstance(pattern, Mapping) else []
        said = [text[:MAX_SHOWN] for text in texts if isinstance(text, str)]
        if any(map(_holds_word, said)):
            found.add(" → ".join(reversed([text for text in said if text.strip()])))
    return found


def _holds_word(text: str) -> bool:
    """Three letters in a row, outside the escapes and classes of a regular expression."""
    return _WORD.search(_SYNTAX.sub(" ", text)) is not None


def _put_tokens(value: Any, tokenizer: _Tokenizer) -> set[str]:
    """Ordinary tokens that a post-processor puts around every input."""
    found = set()
    for part in _parts(value):
        if part.get("type") == "TemplateProcessing":
            named = part.get("special_tokens")
            for item in named.values() if isinstance(named, Mapping) else ():
                ids = item.get("ids") if isinstance(item, Mapping) else None
                found |= set(_texts_of(ids, tokenizer))
        for key in ("sep", "cls"):
            pair = part.get(key)
            if isinstance(pair, list) and len(pair) == 2:
                found |= set(_texts_of(pair[1:], tokenizer))
    return {text for text in found if not is_reserved(text)}


def _texts_of(ids: Any, tokenizer: _Tokenizer) -> Iterable[str]:
    for token in ids if isinstance(ids, list) else ():
        if isinstance(token, int) and 0 <= token < len(tokenizer.texts):
            yield tokenizer.texts[token]
