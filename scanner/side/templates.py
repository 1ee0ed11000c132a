"""The chat templates of a repository, and what they have that no template of the base has."""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final, TypeVar

from scanner.errors import HubAuditError
from scanner.records import RepoFacts, Skip
from scanner.side.outline import MAX_TEMPLATE_CHARS, BadTemplate, Outline, outline
from scanner.side.reading import TextReader, inherited, read_object
from scanner.side.records import Difference, Emission, Guard, Reach, Template, TemplateFacts

JSON_PLACES: Final = ("tokenizer_config.json", "chat_template.json", "processor_config.json")
"""Files whose key ``chat_template`` holds a template, or several by name."""
MAX_TEMPLATES: Final = 16
MAX_LISTED: Final = 20
"""New conditions and reaches that are kept of one template, the gravest first."""
MAX_TEXTS: Final = 200
"""New literal texts that are kept, those under a condition first; real templates have fewer, fillers hide nothing."""
MAX_SHOWN: Final = 300
_SPACE: Final = re.compile(r"\s+")
_SENTENCE: Final = re.compile(r"(?<=[.!?。！？])\s+|\n+")
_INVISIBLE: Final = frozenset(
    {
        *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2070), 0xFEFF, 0x00AD, 0x034F, 0x180E,
        0x3164, *range(0xE0000, 0xE0080), *range(0xE0100, 0xE01F0),
    }
)  # fmt: skip
"""Code points that show nothing or turn the direction of writing (Unicode 16, Default_Ignorable_Code_Point and
Bidi_Control, without the variation selectors that emoji use)."""
_JOINERS: Final = frozenset({0x200C, 0x200D})
"""Persian, the Indic scripts and emoji are written with these; between Latin letters they only hide."""
_Item = TypeVar("_Item", Guard, Reach)


def template_files(facts: RepoFacts) -> tuple[str, ...]:
    """The files of a repository in which templates stand, of those that are listed."""
    alone = [e.path for e in facts.files if e.path == "chat_template.jinja" or _is_additional(e.path)]
    return (*(path for path in JSON_PLACES if facts.file(path)), *alone)


def compare_templates(
    candidate: RepoFacts,
    base: RepoFacts | None,
    reader: TextReader,
    skips: list[Skip],
    *,
    embedded: Iterable[Template] = (),
    embedded_base: Callable[[], Iterable[Template]] = tuple,
) -> tuple[TemplateFacts, ...]:
    """Hold every template of the candidate against all those of the base.

    Files that the base has too, by the hashes of the listings, are not read. What is new is what no template of the
    base has, under whatever name: templates move between files as libraries change.

    Args:
        candidate: facts of the candidate.
        base: facts of the base.
        reader: reads small files.
        skips: takes what cannot be read.
        embedded: templates that stand inside the candidate's weight files.
        embedded_base: reads those of the base; only asked when the candidate has a template.
    """
    places = [path for path in template_files(candidate) if not inherited(path, candidate, base)]
    own = [*_templates(candidate, places, reader, skips), *embedded]
    if not own:
        return ()
    theirs = [*_templates(base, template_files(base), reader, skips), *embedded_base()] if base else []
    known = _Known(theirs, skips, base)
    found = []
    for template in own[:MAX_TEMPLATES]:
        try:
            found.append(known.compare(template))
        except BadTemplate as error:
            state: Difference = "changed" if theirs else "added"
            found.append(TemplateFacts(file=template.file, name=template.name, state=state, problem=str(error)))
            skips.append(Skip(what=f"{template.file}: {template.name[:40]!a}", why=f"The chat template {error}."))
    if len(own) > MAX_TEMPLATES:
        skips.append(Skip(what=f"{len(own) - MAX_TEMPLATES} more chat templates", why="They are too many to be read."))
    return tuple(found)


class _Known:
    """What the base's templates hold, all together."""

    def __init__(self, templates: list[Template], skips: list[Skip], base: RepoFacts | None) -> None:
        self._texts = {template.text for template in templates}
        self._spaceless = {_SPACE.sub("", template.text) for template in templates}
        self._all = "\n".join(templates_text(templates))
        self._seen = _SPACE.sub(" ", self._all)
        self._any = bool(templates)
        self._outline = Outline()
        for template in templates[:MAX_TEMPLATES]:
            try:
                _absorb(self._outline, outline(template.text))
            except BadTemplate as error:
                name = base.ref.name if base else ""
                skips.append(Skip(what=f"{name}: {template.file}", why=f"The base's chat template {error}."))

    def compare(self, template: Template) -> TemplateFacts:
        """Say what is new.

        Raises:
            BadTemplate: the candidate's template cannot be read.
        """
        if template.text in self._texts:
            return TemplateFacts(file=template.file, name=template.name, state="same")
        own = outline(template.text)
        emissions = tuple(self._new_texts(own.emissions))
        conditions = _beyond(own.conditions, self._outline.conditions)
        reaches = _beyond(own.reaches, self._outline.reaches)
        written = "\n".join(emission.text for emission in own.emissions)  # escapes are opened there
        hidden = tuple(sorted({*_hidden(template.text), *_hidden(written)} - set(_hidden(self._all))))
        spaced = _SPACE.sub("", template.text) in self._spaceless and not (emissions or conditions or hidden)
        state: Difference = "whitespace" if spaced else "changed" if self._any else "added"
        return TemplateFacts(
            file=template.file,
            name=template.name,
            state=state,
            emissions=tuple(sorted(emissions, key=lambda e: not _decisive(e)))[:MAX_TEXTS],
            conditions=_worst_first(conditions)[:MAX_LISTED],
            reaches=tuple(sorted(reaches, key=lambda r: r.kind == "call"))[:MAX_LISTED],
            hidden=hidden[:MAX_LISTED],
        )

    def _new_texts(self, emissions: Iterable[Emission]) -> Iterator[Emission]:
        """Of every literal text, the sentences that stand nowhere in the base's templates.

        A text that the base has, but not under a condition on content or clock, is new under one.
        """
        guarded = {(_plain(known.text), _decisive(known)) for known in self._outline.emissions}
        for emission in emissions:
            decisive = _decisive(emission)
            if decisive and (_plain(emission.text), decisive) not in guarded:
                yield replace(emission, text=emission.text.strip()[:MAX_SHOWN])
                continue
            pieces = [_plain(piece) for piece in _SENTENCE.split(emission.text)]
            fresh = " ".join(piece for piece in pieces if piece and piece not in self._seen)
            if fresh:
                yield replace(emission, text=fresh[:MAX_SHOWN])


def templates_text(templates: Iterable[Template]) -> Iterator[str]:
    """The sources, with escapes inside string literals opened, so that texts are found however they are written."""
    for template in templates:
        yield template.text
        if "\\n" in template.text:
            yield template.text.replace("\\n", "\n")


def _templates(
    facts: RepoFacts | None, places: Iterable[str], reader: TextReader, skips: list[Skip]
) -> Iterator[Template]:
    if facts is None:
        return
    for path in places:
        if path in JSON_PLACES:
            content = read_object(facts, path, reader, skips)
            yield from _in_json(path, (content or {}).get("chat_template"))
            continue
        try:
            text = reader.read_text(facts.ref, path, limit_bytes=4 * MAX_TEMPLATE_CHARS)
        except HubAuditError as error:
            skips.append(Skip(what=f"{facts.ref.name}: {path}", why=str(error)))
            continue
        yield Template(file=path, name="default" if "/" not in path else path.rsplit("/", 1)[1][:-6], text=text)


def _in_json(path: str, value: Any) -> Iterator[Template]:
    """A template, a list of named ones, or a table of them."""
    if isinstance(value, str):
        yield Template(file=path, name="default", text=value)
    elif isinstance(value, Mapping):
        for name, text in value.items():
            if isinstance(text, str):
                yield Template(file=path, name=str(name)[:80], text=text)
    elif isinstance(value, list):
        for item in value:
            if isinstance(item, Mapping) and isinstance(item.get("template"), str):
                yield Template(file=path, name=str(item.get("name", ""))[:80], text=item["template"])


def _is_additional(path: str) -> bool:
    return path.startswith("additional_chat_templates/") and path.endswith(".jinja")


def _absorb(into: Outline, more: Outline) -> None:
    into.emissions += more.emissions
    into.conditions |= more.conditions
    into.reaches |= more.reaches


def _beyond(own: Counter[_Item], known: Counter[_Item]) -> tuple[_Item, ...]:
    return tuple(item for item in own if item not in known)


def _worst_first(conditions: tuple[Guard, ...]) -> tuple[Guard, ...]:
    """Conditions on the clock, then those that look for the longest words: what is cut off matters least."""
    return tuple(sorted(conditions, key=lambda g: (g.kind != "date", -max(map(len, g.needles), default=0))))


def _decisive(emission: Emission) -> frozenset[Guard]:
    return frozenset(
        Guard(kind=guard.kind, needles=guard.needles) for guard in emission.guards if guard.kind in {"content", "date"}
    )


def _plain(text: str) -> str:
    return _SPACE.sub(" ", text).strip()


def _hidden(text: str) -> Iterator[str]:
    """The invisible characters of a text, as code points."""
    if text.isascii():
        return
    for at, letter in enumerate(text):
        code = ord(letter)
        if code not in _INVISIBLE or (at == 0 and code == 0xFEFF):
            continue
        if code in _JOINERS and not (text[at - 1 : at].isascii() and text[at + 1 : at + 2].isascii()):
            continue
        yield f"U+{code:04X} {unicodedata.name(letter, 'unnamed')}"
