"""What a fleet scans: an author, the descendants of a base, a search, or a file of ids; filtered, without repeats.

Listings come from the Hub page by page and already tell the head commit, the size and the declared base of each
repository: what has not changed since the last run then costs no request. A file tells names only. Its lines are ids
on the Hub and nothing else, since the file may come from anywhere: never a folder of this machine.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal

from pipelines.ledger_selection import Wanted
from scanner.errors import BadReference, HubAuditError, HubRateLimited, RepoUnavailable
from scanner.hub import Hub
from scanner.refs import RepoSpec, as_repo_id, parse_spec

Gating = Literal["any", "open", "gated"]
MAX_LINE_CHARS: Final = 1024
MAX_DEPTH: Final = 8
"""Generations of descendants that are followed."""
_NAMED_PROBLEMS: Final = 20
_KEPT_OF_LISTING: Final = (
    "id", "sha", "author", "tags", "base_models", "relation", "gated", "private", "disabled", "downloads", "likes",
    "created_at", "last_modified", "library_name", "pipeline_tag", "weights_bytes",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Which of the listed repositories to keep; they cannot be applied to a file, which states nothing but names.

    ``min_downloads`` counts those of the last 30 days, as the Hub does. ``changed_after`` and ``created_after`` are
    moments in UTC (included). ``limit`` counts repositories after filtering.
    """

    min_downloads: int = 0
    changed_after: datetime | None = None
    created_after: datetime | None = None
    gating: Gating = "any"
    limit: int | None = None

    def keep(self, about: Mapping[str, Any]) -> bool:
        """Whether a listed repository passes; what the listing does not say counts against it."""
        return (
            (about.get("downloads") or 0) >= self.min_downloads
            and _not_before(about.get("last_modified"), self.changed_after)
            and _not_before(about.get("created_at"), self.created_after)
            and (self.gating == "any" or bool(about.get("gated")) == (self.gating == "gated"))
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What to scan. Exactly one of ``author``, ``base``, ``search`` and ``models`` (a file) is set.

    ``generations`` is how far descendants of ``base`` are followed: 1 for its own fine-tunes, adapters, merges and
    quantizations.
    """

    author: str | None = None
    base: str | None = None
    search: str | None = None
    models: Path | None = None
    generations: int = 1
    filters: Filters = field(default_factory=Filters)

    def as_json(self) -> dict[str, Any]:
        """Return the selection as plain values: equal for equal questions."""
        filters = self.filters
        return {
            "author": self.author,
            "base": self.base,
            "search": self.search,
            "models": str(self.models.resolve()) if self.models else None,
            "generations": self.generations,
            "min_downloads": filters.min_downloads,
            "gating": filters.gating,
            "limit": filters.limit,
        }


@dataclass(slots=True)
class Problems:
    """Lines and repositories that were left out, and why: the first ones by name, all of them counted."""

    counts: dict[str, int] = field(default_factory=dict)
    named: list[str] = field(default_factory=list)

    def add(self, why: str, what: str) -> None:
        """Note one."""
        self.counts[why] = self.counts.get(why, 0) + 1
        if len(self.named) < _NAMED_PROBLEMS:
            self.named.append(f"{what}: {why}")


def select(selection: Selection, hub: Hub, problems: Problems) -> Iterator[Wanted]:
    """Yield every selected repository once, as it is listed or read.

    Raises:
        BadReference: the base cannot be a repository, or the file cannot be read.
        CouldNotConclude: the Hub could not be listed.
    """
    if selection.models is not None:
        found: Iterable[Wanted] = read_ids(selection.models, hub.endpoint, problems)
        found = _head(found, selection.filters.limit)
    else:
        listed = (about for about in _listed(selection, hub) if selection.filters.keep(about))
        found = _head(_nameable(listed, problems), selection.filters.limit)
    yield from _once(found, problems)


def read_ids(path: Path, endpoint: str, problems: Problems) -> Iterator[Wanted]:
    """Yield the repositories named in a file: one ``org/name``, ``org/name@revision`` or Hub URL a line.

    Blank lines and text after ``#`` are passed over. What is no repository is noted and left out.

    Raises:
        BadReference: the file cannot be read.
    """
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            while line := file.readline(MAX_LINE_CHARS + 1):
                overlong = not line.endswith("\n") and len(line) > MAX_LINE_CHARS
                while overlong and (rest := file.readline(MAX_LINE_CHARS)) and not rest.endswith("\n"):
                    pass
                text = re.sub(r"(^|\s)#.*", "", line).strip()
                if not text:
                    continue
                wanted = None if overlong else _parse_line(text, endpoint)
                if wanted is None:
                    problems.add("not a repository on the Hub", ascii(text[:80]))
                else:
                    yield wanted
    except OSError as error:
        raise BadReference(f"{path} cannot be read ({error.strerror}); give a text file with one id a line.") from error


def wanted_of(about: Mapping[str, Any]) -> Wanted:
    """Return a listed repository as the ledger takes it."""
    bases = [name for name in about.get("base_models") or () if as_repo_id(name)]
    kept = {key: about[key] for key in _KEPT_OF_LISTING if key in about}
    return Wanted(
        repo_id=str(about["id"]),
        listed=about.get("sha"),
        size_bytes=about.get("weights_bytes"),
        family=bases[0] if bases else None,
        described=kept,
    )


def since(text: str, last_run: datetime | None, now: datetime) -> datetime:
    """Read ``--since``: ``last`` (when the last finished run began), a date, a moment (ISO 8601), or ``3d``, ``12h``.

    Raises:
        BadReference: it is none of these, or ``last`` when there was no run.
    """
    if text == "last":
        if last_run is None:
            raise BadReference("--since last: the ledger has no finished run yet; leave --since out the first time.")
        return last_run
    age = re.fullmatch(r"(\d{1,5})([dh])", text, re.ASCII)
    if age:
        return now - (timedelta(days=int(age[1])) if age[2] == "d" else timedelta(hours=int(age[1])))
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise BadReference(f"--since {text[:40]!a} is not a moment; give last, 2026-11-20, 3d or 12h.") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _nameable(listed: Iterable[Mapping[str, Any]], problems: Problems) -> Iterator[Wanted]:
    """Yield what has a name that the Hub could have given it."""
    for about in listed:
        if as_repo_id(about.get("id")) == about.get("id") is not None:
            yield wanted_of(about)
        else:
            problems.add("listed under a name that cannot be", ascii(about.get("id"))[:80])


def _listed(selection: Selection, hub: Hub) -> Iterator[Mapping[str, Any]]:
    changed_after = selection.filters.changed_after
    # Newest first, so that the listing can end where the changes end.
    sort = "last_modified" if changed_after else "downloads" if selection.filters.min_downloads else None
    if selection.base is not None:
        yield from _descendants(selection.base, selection.generations, hub)
        return
    for about in hub.list_models(author=selection.author, search=selection.search, sort=sort):
        if sort == "last_modified" and not _not_before(about.get("last_modified"), changed_after):
            return
        if sort == "downloads" and (about.get("downloads") or 0) < selection.filters.min_downloads:
            return
        yield about


def _descendants(base: str, generations: int, hub: Hub) -> Iterator[Mapping[str, Any]]:
    """Yield all that declare the base, then all that declare one of those; a cycle ends where it began."""
    root = as_repo_id(base, endpoint=hub.endpoint)
    if root is None:
        raise BadReference(f"--base {base[:80]!a} is not a repository; give org/name.")
    asked, level = {root.casefold()}, [root]
    for _ in range(min(generations, MAX_DEPTH)):
        following: list[str] = []
        for name in level:
            # Every declared relation carries this tag, besides the one that names the relation.
            for about in hub.list_models(tags=(f"base_model:{name}",)):
                child = str(about.get("id"))
                yield about
                if child.casefold() not in asked:
                    asked.add(child.casefold())
                    following.append(child)
        level = following


def _parse_line(text: str, endpoint: str) -> Wanted | None:
    """Read one line as a repository on the Hub, whatever folders lie around here."""
    name, at, revision = text.partition("@")
    try:
        # A name followed by `@` is never a folder to the parser.
        spec = parse_spec(text if "://" in text else f"{name}@{revision or 'main'}", endpoint=endpoint)
    except HubAuditError:
        return None
    if spec.repo_id is None or spec.path is not None or (at and not revision):
        return None
    wanted = spec.revision if "://" in text or at else None
    return Wanted(repo_id=spec.repo_id, wanted="" if wanted in {None, "main"} else str(wanted))


def _once(found: Iterable[Wanted], problems: Problems) -> Iterator[Wanted]:
    """Leave out repeats. Remembers 16 bytes of each name, so that millions fit."""
    from hashlib import blake2b

    seen: set[bytes] = set()
    for one in found:
        key = blake2b(f"{one.repo_id.casefold()}@{one.wanted}".encode(), digest_size=16).digest()
        if key in seen:
            problems.add("named more than once", one.repo_id)
            continue
        seen.add(key)
        yield one


def _head(found: Iterable[Wanted], limit: int | None) -> Iterator[Wanted]:
    for number, one in enumerate(found):
        if limit is not None and number >= limit:
            return
        yield one


def _not_before(stamp: Any, moment: datetime | None) -> bool:
    if moment is None:
        return True
    try:
        return datetime.fromisoformat(stamp) >= moment
    except (TypeError, ValueError):
        return False


class Heads:
    """The heads of bases, each looked up once: tells whether a finished scan was held against the present ones."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._heads: dict[str, str | None] = {}

    def still(self, pins: Mapping[str, str]) -> bool:
        """Whether every repository is at its pinned commit ("" for one that was not there, and still is not).

        Raises:
            HubUnreachable, HubRateLimited: the Hub cannot be asked.
        """
        return all((self._head(name) or "") == commit for name, commit in pins.items())

    def _head(self, name: str) -> str | None:
        if name not in self._heads:
            repo_id, _, revision = name.partition("@")
            try:
                ref = self._hub.resolve(RepoSpec(text=name, repo_id=repo_id, revision=revision or None))
                self._heads[name] = ref.revision
            except HubRateLimited:
                raise
            except (RepoUnavailable, BadReference):
                self._heads[name] = None
        return self._heads[name]
