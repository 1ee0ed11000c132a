"""Repositories: commits, trees and refs, as much of git as the Hub's API shows."""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from localhub.blobs import Content, Entry
from localhub.discussions import Discussion
from localhub.wire import HubError

MAIN = "refs/heads/main"


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """A snapshot. ``last`` maps each path to the commit that last touched it."""

    id: str
    parents: tuple[str, ...]
    tree: Mapping[str, Entry]
    last: Mapping[str, str]
    title: str
    message: str
    author: str
    date: str


@dataclass(slots=True, kw_only=True)
class Repo:
    """A model repository and the rules for access to it."""

    repo_id: str
    created: str
    private: bool = False
    gated: bool | str = False
    disabled: bool = False
    pull_requests: bool = True
    downloads: int = 0
    likes: int = 0
    security: dict[str, Any] | None = None
    readers: set[str] = field(default_factory=set)
    commits: dict[str, Commit] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    discussions: dict[int, Discussion] = field(default_factory=dict)
    objects: dict[str, Content] = field(default_factory=dict)

    @property
    def owner(self) -> str:
        """The user or organisation of the namespace."""
        return self.repo_id.removeprefix("datasets/").split("/", maxsplit=1)[0]

    @property
    def head(self) -> Commit:
        """The commit of the main branch."""
        return self.commits[self.refs[MAIN]]

    def find_ref(self, revision: str) -> str | None:
        """Return the full name of the branch, tag or pull request called ``revision``."""
        names = (revision, f"refs/heads/{revision}", f"refs/tags/{revision}")
        return next((name for name in names if name in self.refs), None)

    def resolve(self, revision: str) -> Commit:
        """Return the commit of a ref, or of a hash of 7 to 40 digits.

        Raises:
            HubError: 404 RevisionNotFound.
        """
        ref = self.find_ref(revision)
        if ref is not None:
            return self.commits[self.refs[ref]]
        if re.fullmatch(r"[0-9a-f]{7,40}", revision):
            found = [commit for commit in self.commits.values() if commit.id.startswith(revision)]
            if len(found) == 1:
                return found[0]
        raise HubError(404, f"Invalid rev id: {revision}", code="RevisionNotFound")

    def find_object(self, sha256: str) -> Content | None:
        """Return an LFS object that was uploaded to the repository or is part of one of its trees."""
        if sha256 in self.objects:
            return self.objects[sha256]
        entries = (entry for commit in self.commits.values() for entry in commit.tree.values())
        return next((entry.content for entry in entries if entry.sha256 == sha256), None)

    def history(self, commit: Commit) -> Iterator[Commit]:
        """Yield a commit and its first parents, newest first."""
        while True:
            yield commit
            if not commit.parents:
                return
            commit = self.commits[commit.parents[0]]

    def ancestors(self, commit: Commit) -> set[str]:
        """Return the ids of a commit and of everything it descends from."""
        seen: set[str] = set()
        waiting = [commit.id]
        while waiting:
            commit_id = waiting.pop()
            if commit_id not in seen:
                seen.add(commit_id)
                waiting.extend(self.commits[commit_id].parents)
        return seen

    def commit(
        self,
        ref: str,
        *,
        changes: Mapping[str, Entry],
        deletions: Iterable[str] = (),
        title: str,
        message: str = "",
        author: str,
        date: str,
        parents: tuple[str, ...] | None = None,
    ) -> Commit:
        """Add a commit on ``ref``; a deletion that ends in ``/`` removes a folder.

        Ids depend on content, parents, words and position, never on the clock, so runs are reproducible.

        Raises:
            HubError: 404 EntryNotFound when there is nothing to delete.
        """
        old = self.commits.get(self.refs.get(ref, ""))
        tree = dict(old.tree) if old else {}
        for path in deletions:
            _delete(tree, path)
        tree.update(changes)
        if parents is None:
            parents = (old.id,) if old else ()
        words = [self.repo_id, ref, *parents, title, message, author, str(len(self.commits))]
        words += [f"{path}\0{entry.oid}" for path, entry in sorted(tree.items())]
        commit_id = hashlib.sha1("\0".join(words).encode(), usedforsecurity=False).hexdigest()
        last = dict.fromkeys(tree, commit_id) | {path: old.last[path] for path in tree if old and path not in changes}
        commit = Commit(
            id=commit_id,
            parents=parents,
            tree=tree,
            last=last,
            title=title,
            message=message,
            author=author,
            date=date,
        )
        self.commits[commit_id] = commit
        self.refs[ref] = commit_id
        return commit


def _delete(tree: dict[str, Entry], path: str) -> None:
    doomed = [name for name in tree if name == path or (path.endswith("/") and name.startswith(path))]
    if not doomed:
        raise HubError(404, "A file with this name doesn't exist", code="EntryNotFound")
    for name in doomed:
        del tree[name]
