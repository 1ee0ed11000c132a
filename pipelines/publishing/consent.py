"""Who wants to hear from us: the card key, the lists of allowed and of opted-out repositories, closed threads.

An owner says no in any of three ways, and each holds until the owner takes it back: ``hubaudit: false`` in the card's
metadata, closing our thread, or an entry in the publisher's opt-out list.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from scanner.card import parse_card
from scanner.errors import BadReference

CARD_KEY = "hubaudit"
_NO = frozenset({"false", "off", "no", "never", "opt-out", "none"})
_NO_LINE = re.compile(
    rf"^{CARD_KEY}[ \t]*:[ \t]*[\"']?(?:{'|'.join(sorted(_NO))})[\"']?[ \t]*(?:#.*)?\r?$", re.IGNORECASE | re.MULTILINE
)
_ENTRY = re.compile(r"[\w.-]{1,96}(?:/(?:[\w.-]{1,96}|\*))?", re.ASCII)
MAX_ENTRIES = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class RepoList:
    """Repositories by name, or whole namespaces; compared without regard to case, as the Hub does."""

    repos: frozenset[str] = frozenset()
    owners: frozenset[str] = frozenset()

    def __contains__(self, repo_id: str) -> bool:
        name = repo_id.lower()
        return name in self.repos or name.split("/")[0] in self.owners


def read_list(path: Path) -> RepoList:
    """Read a list file: one ``org/name``, ``org/*`` or ``org`` a line; ``#`` begins a comment.

    Raises:
        BadReference: a line is none of these. A list that cannot be understood protects nobody, so nothing is done.
        OSError: the file cannot be read.
    """
    repos: set[str] = set()
    owners: set[str] = set()
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        entry = line.split("#", 1)[0].strip().lower()
        if not entry:
            continue
        if not _ENTRY.fullmatch(entry) or number > MAX_ENTRIES:
            raise BadReference(f"{path}, line {number}: not a repository; write org/name, org/* or org.")
        owner, slash, name = entry.partition("/")
        if slash and name != "*":
            repos.add(entry)
        else:
            owners.add(owner)
    return RepoList(repos=frozenset(repos), owners=frozenset(owners))


def card_opts_out(readme: bytes) -> bool:
    """Whether the card's metadata says ``hubaudit: false`` (or off, no, never), or ``hubaudit: {publish: false}``.

    Where the metadata cannot be parsed, a line that says so is enough: a no is a no, in broken YAML too.
    """
    text = readme.decode("utf-8", "replace")
    card = parse_card(text)
    if card.metadata is None:
        return bool(card.problem) and _NO_LINE.search(text) is not None
    value = card.metadata.get(CARD_KEY)
    if isinstance(value, dict):
        value = value.get("publish")
    return value is False or (isinstance(value, str) and value.strip().lower() in _NO)


def is_own(repo_id: str, *, user: str, orgs: Iterable[str]) -> bool:
    """Whether a repository lies in the user's namespace, or in one of the organisations they may write to."""
    owner = repo_id.split("/", maxsplit=1)[0].lower()
    return owner == user.lower() or owner in {org.lower() for org in orgs}
