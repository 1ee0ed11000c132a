"""What a pull request changes: its diff, and its merge into a branch, path by path."""

import difflib

from localhub.blobs import Entry, pointer
from localhub.discussions import Discussion
from localhub.store import Commit, Repo
from localhub.wire import HubError


def merge_base(repo: Repo, discussion: Discussion) -> Commit:
    """Return the newest commit that the pull request shares with the branch it wants to go to."""
    if discussion.merge_base is not None:
        return repo.commits[discussion.merge_base]
    shared = repo.ancestors(repo.commits[repo.refs[discussion.base_ref or ""]])
    history = repo.history(repo.commits[repo.refs[discussion.head_ref]])
    return next(commit for commit in history if commit.id in shared)


def pull_request_diff(repo: Repo, discussion: Discussion) -> str:
    """Return what a pull request changes, as git shows it."""
    return diff(merge_base(repo, discussion), repo.commits[repo.refs[discussion.head_ref]])


def diff(old: Commit, new: Commit) -> str:
    """Return the changes between two commits in git's form; LFS files by their pointers."""
    parts = []
    for path in sorted(old.tree.keys() | new.tree.keys()):
        before, after = old.tree.get(path), new.tree.get(path)
        if _identity(before) == _identity(after):
            continue
        lines = difflib.unified_diff(
            _lines(before),
            _lines(after),
            f"a/{path}" if before else "/dev/null",
            f"b/{path}" if after else "/dev/null",
        )
        parts.append(f"diff --git a/{path} b/{path}\n")
        parts += [line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines]
    return "".join(parts)


def merge(repo: Repo, discussion: Discussion, *, author: str, date: str) -> Commit:
    """Merge an open pull request.

    Raises:
        HubError: 409 when it is not open, or when both sides changed the same file differently.
    """
    if discussion.base_ref is None or discussion.status not in {"draft", "open"}:
        raise HubError(409, "This pull request is not open")
    base = merge_base(repo, discussion)
    head = repo.commits[repo.refs[discussion.head_ref]]
    target = repo.commits[repo.refs[discussion.base_ref]]
    changed = [
        path
        for path in head.tree.keys() | base.tree.keys()
        if _identity(head.tree.get(path)) != _identity(base.tree.get(path))
    ]
    discussion.conflicts = sorted(path for path in changed if _conflicts(path, base, head, target))
    if discussion.conflicts:
        raise HubError(409, f"This pull request has conflicts: {', '.join(discussion.conflicts)}")
    commit = repo.commit(
        discussion.base_ref,
        changes={path: head.tree[path] for path in changed if path in head.tree},
        deletions=[path for path in changed if path not in head.tree and path in target.tree],
        title=f"{discussion.title} (#{discussion.num})",
        author=author,
        date=date,
        parents=(target.id, head.id),
    )
    discussion.merge_base = base.id
    discussion.merge_commit = commit.id
    discussion.status = "merged"
    return commit


def _identity(entry: Entry | None) -> str | None:
    return entry.oid if entry else None


def _conflicts(path: str, base: Commit, head: Commit, target: Commit) -> bool:
    before, ours, theirs = (_identity(commit.tree.get(path)) for commit in (base, target, head))
    return ours not in {before, theirs}


def _lines(entry: Entry | None) -> list[str]:
    if entry is None:
        return []
    shown = pointer(entry.sha256, entry.size) if entry.sha256 else entry.read()
    # Not str.splitlines: git knows no line end but the line feed.
    lines = shown.decode("utf-8", "replace").split("\n")
    return [f"{line}\n" for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])
