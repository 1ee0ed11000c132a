"""Licence files of a repository, known by the title with which the text of a well-known licence begins."""

import re
from itertools import pairwise
from typing import Final

from scanner.card_context import LicenceFile
from scanner.errors import HubAuditError
from scanner.records import RepoFacts, Skip
from scanner.side.reading import TextReader

MAX_FILES: Final = 4
MAX_BYTES: Final = 256 << 10
"""The longest licences in use have about 40,000 characters."""
HEAD_LINES: Final = 6
"""Lines with text among which a title is looked for."""
MAX_LINE: Final = 200
_NAME: Final = re.compile(r"(?:licen[cs]e|copying)(?:[-_.][a-z0-9.+_-]{0,40})?", re.IGNORECASE)
_ELSEWHERE: Final = re.compile(r"code|data|third|notice", re.IGNORECASE)
"""In names of licence files that are not about the weights."""
_DRESS: Final = re.compile(r"[\s#*=_|>`-]+")
_TITLES: Final[tuple[tuple[str, str], ...]] = (
    (r"(?:the )?mit license(?: \(mit\))?", "mit"),
    (r"apache license,? (?:version )?2\.0(?:,? january 2004)?", "apache-2.0"),
    (r"gnu general public license,? version 3(?:,? 29 june 2007)?", "gpl-3.0"),
    (r"gnu general public license,? version 2(?:,? june 1991)?", "gpl-2.0"),
    (r"gnu affero general public license,? version 3(?:,? 19 november 2007)?", "agpl-3.0"),
    (r"gnu lesser general public license,? version 3(?:,? 29 june 2007)?", "lgpl-3.0"),
    (r"(?:the )?(?:new )?bsd 3 clause license", "bsd-3-clause"),
    (r"(?:the )?bsd 2 clause license", "bsd-2-clause"),
    (r"isc license", "isc"),
    (r"mozilla public license,? version 2\.0", "mpl-2.0"),
    (r"(?:the unlicense|this is free and unencumbered software released into the public domain\.)", "unlicense"),
    (r"(?:creative commons )?(?:legal code )?cc0 1\.0 universal", "cc0-1.0"),
    (r"llama 2 community license agreement", "llama2"),
    (r"meta llama 3 community license agreement", "llama3"),
    (r"llama 3\.1 community license agreement", "llama3.1"),
    (r"llama 3\.2 community license agreement", "llama3.2"),
    (r"llama 3\.3 community license agreement", "llama3.3"),
    (r"llama 4 community license agreement", "llama4"),
    (r"gemma terms of use", "gemma"),
    (r"creativeml open rail m", "creativeml-openrail-m"),
    (r"creativeml open rail\+\+ m(?: license)?", "openrail++"),
    (r"bigcode open ?rail m(?: v1)? license agreement", "bigcode-openrail-m"),
    (r"bigscience rail license v1\.0", "bigscience-bloom-rail-1.0"),
)
"""Titles of the texts under ``source`` in ``audit/card/licences.json``, in small letters, with single spaces."""
_COMMONS: Final = re.compile(
    r"(?:creative commons )?(?:legal code )?attribution((?: noncommercial)?(?: sharealike| noderivatives| noderivs)?) "
    r"([234]\.0)(?: international| unported| generic)?(?: public license)?"
)
_SHORT: Final = {"noncommercial": "nc", "sharealike": "sa", "noderivatives": "nd", "noderivs": "nd"}


def read_licence_files(facts: RepoFacts, reader: TextReader, skips: list[Skip]) -> tuple[LicenceFile, ...]:
    """Read the licence files at the root of a repository, at most ``MAX_FILES``; those about code or data are left out.

    Args:
        facts: of the repository.
        reader: reads small files.
        skips: takes what cannot be read.
    """
    found: list[LicenceFile] = []
    entries = [entry for entry in facts.files if _is_licence(entry.path)]
    if len(entries) > MAX_FILES:
        skips.append(Skip(what=f"{len(entries) - MAX_FILES} more licence files", why=f"{MAX_FILES} were read."))
    for entry in entries[:MAX_FILES]:
        try:
            text = reader.read_text(facts.ref, entry.path, limit_bytes=MAX_BYTES)
        except HubAuditError as error:
            skips.append(Skip(what=entry.path, why=str(error)))
            continue
        found.append(LicenceFile(path=entry.path, licence=known_licence(text)))
    return tuple(found)


def _is_licence(path: str) -> bool:
    return bool(_NAME.fullmatch(path)) and not _ELSEWHERE.search(path) and not path.lower().endswith(".py")


def known_licence(text: str) -> str | None:
    """Return the Hub's name of the licence with whose title a text begins, None when it begins with no known one.

    A title stands alone on a line, or on the two lines on which the text of the licence has it; "Modified MIT License"
    is none.
    """
    lines = [_plain(line[:MAX_LINE]) for line in text[: HEAD_LINES * 4 * MAX_LINE].splitlines()]
    lines = [line for line in lines if line][:HEAD_LINES]
    for candidate in (*lines, *(f"{one} {two}" for one, two in pairwise(lines))):
        if (found := _commons(candidate)) is not None:
            return found
        for title, name in _TITLES:
            if re.fullmatch(title, candidate):
                return name
    return None


def _commons(line: str) -> str | None:
    found = _COMMONS.fullmatch(line)
    if found is None:
        return None
    return "-".join(("cc-by", *(_SHORT[word] for word in found.group(1).split()), found.group(2)))


def _plain(line: str) -> str:
    return _DRESS.sub(" ", line.removeprefix("\ufeff")).strip().lower()
