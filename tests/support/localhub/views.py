"""Repositories, commits and files in the shapes of the Hub's JSON."""

from collections.abc import Iterable, Mapping
from typing import Any

from localhub import cards
from localhub.blobs import Entry
from localhub.stamps import object_id
from localhub.store import Commit, Repo

EXPAND_ONLY = frozenset({"baseModels", "downloadsAllTime"})
LISTING = frozenset({"private", "downloads", "likes", "tags", "library_name", "pipeline_tag", "createdAt"})


def model_json(
    repo: Repo,
    commit: Commit,
    *,
    others: Iterable[Repo],
    expand: list[str] | None = None,
    blobs: bool = False,
    security: bool = False,
    brief: bool = False,
) -> dict[str, Any]:
    """Return a model.

    Args:
        repo: the repository.
        commit: the revision to show.
        others: every repository, for counting descendants.
        expand: only these properties, besides the id.
        blobs: add sizes and hashes to the siblings.
        security: add the scan status.
        brief: only what listings show by default.
    """
    shown: dict[str, Any] = {"_id": object_id(repo.repo_id), "id": repo.repo_id, "modelId": repo.repo_id}
    facts = _model_facts(repo, commit)
    facts["siblings"] = [_sibling(path, entry, blobs=blobs) for path, entry in sorted(commit.tree.items())]
    if expand is not None:
        if "childrenModelCount" in expand:
            facts["childrenModelCount"] = _children(repo, others)
        return shown | {key: facts[key] for key in expand if key in facts}
    hidden = EXPAND_ONLY | {"securityRepoStatus"} if not security else EXPAND_ONLY
    kept = LISTING if brief else facts.keys() - hidden
    return shown | {key: value for key, value in facts.items() if key in kept}


def _children(repo: Repo, others: Iterable[Repo]) -> int:
    return sum(repo.repo_id in cards.base_models(cards.card_data(other.head.tree)) for other in others)


def _model_facts(repo: Repo, commit: Commit) -> dict[str, Any]:
    card = cards.card_data(commit.tree)
    facts: dict[str, Any] = {
        "author": repo.owner,
        "sha": commit.id,
        "lastModified": repo.head.date,
        "createdAt": repo.created,
        "private": repo.private,
        "gated": repo.gated,
        "disabled": repo.disabled,
        "downloads": repo.downloads,
        "downloadsAllTime": repo.downloads,
        "likes": repo.likes,
        "tags": cards.tags(card, commit.tree),
        "usedStorage": sum(entry.size for entry in commit.tree.values()),
        "spaces": [],
        "securityRepoStatus": repo.security or {"scansDone": True, "filesWithIssues": []},
    }
    derived = {
        "cardData": card,
        "config": cards.config(commit.tree),
        "safetensors": cards.parameters(commit.tree),
        "library_name": card.get("library_name"),
        "pipeline_tag": card.get("pipeline_tag"),
        "baseModels": _base_models(card, commit),
    }
    return facts | {key: value for key, value in derived.items() if value}


def _base_models(card: Mapping[str, Any], commit: Commit) -> dict[str, Any] | None:
    named = [name for name in cards.base_models(card) if cards.REPO_ID.fullmatch(name)]
    if not named:
        return None
    models = [{"_id": object_id(name), "id": name} for name in named]
    return {"relation": cards.relation(card, commit.tree), "models": models}


def _sibling(path: str, entry: Entry, *, blobs: bool) -> dict[str, Any]:
    if not blobs:
        return {"rfilename": path}
    sibling: dict[str, Any] = {"rfilename": path, "blobId": entry.oid, "size": entry.size}
    if entry.sha256:
        sibling["lfs"] = {"sha256": entry.sha256, "size": entry.size, "pointerSize": entry.pointer_size}
    return sibling


def file_json(repo: Repo, commit: Commit, path: str, *, expand: bool) -> dict[str, Any]:
    """Return a file as tree listings show it."""
    entry = commit.tree[path]
    item: dict[str, Any] = {"type": "file", "oid": entry.oid, "size": entry.size, "path": path}
    if entry.sha256:
        item["lfs"] = {"oid": entry.sha256, "size": entry.size, "pointerSize": entry.pointer_size}
    if entry.xet_hash:
        item["xetHash"] = entry.xet_hash
    if expand:
        item["lastCommit"] = _last_commit(repo, commit, path)
        item["securityFileStatus"] = _security_json(repo, path)
    return item


def folder_json(repo: Repo, commit: Commit, path: str, *, expand: bool) -> dict[str, Any]:
    """Return a folder as tree listings show it."""
    item: dict[str, Any] = {"type": "directory", "oid": object_id(path).ljust(40, "0"), "size": 0, "path": path}
    if expand:
        inside = next(name for name in sorted(commit.tree) if name.startswith(f"{path}/"))
        item["lastCommit"] = _last_commit(repo, commit, inside)
    return item


def _last_commit(repo: Repo, commit: Commit, path: str) -> dict[str, str]:
    last = repo.commits[commit.last[path]]
    return {"id": last.id, "title": last.title, "date": last.date}


def _security_json(repo: Repo, path: str) -> dict[str, Any]:
    issues = (repo.security or {}).get("filesWithIssues", [])
    status = next((issue["level"] for issue in issues if issue["path"] == path), "safe")
    scan = {"status": status, "message": None, "reportLink": None, "reportLabel": None}
    return {
        "status": status,
        "jFrogScan": scan,
        "protectAiScan": scan,
        "virusTotalScan": scan,
        "avScan": scan | {"version": "1.4.3/27819"},
        "pickleImportScan": scan | {"pickleImports": [], "version": "0.0.0"},
    }


def tree_json(repo: Repo, commit: Commit, folder: str, *, recursive: bool, expand: bool) -> list[dict[str, Any]]:
    """Return what lies in a folder (``""`` for the root); a file's own path gives that file."""
    if folder in commit.tree:
        return [file_json(repo, commit, folder, expand=expand)]
    prefix = f"{folder}/" if folder else ""
    items: dict[str, dict[str, Any]] = {}
    for path in sorted(path for path in commit.tree if path.startswith(prefix)):
        parts = path.removeprefix(prefix).split("/")
        depth = len(parts) - 1 if recursive else min(1, len(parts) - 1)
        for level in range(1, depth + 1):
            parent = prefix + "/".join(parts[:level])
            if parent not in items:
                items[parent] = folder_json(repo, commit, parent, expand=expand)
        if recursive or len(parts) == 1:
            items[path] = file_json(repo, commit, path, expand=expand)
    return list(items.values())


def commit_json(commit: Commit) -> dict[str, Any]:
    """Return a commit as histories show it."""
    return {
        "id": commit.id,
        "title": commit.title,
        "message": commit.message,
        "authors": [{"user": commit.author}],
        "date": commit.date,
    }


def refs_json(repo: Repo, *, include_prs: bool) -> dict[str, Any]:
    """Return branches and tags, and the refs of pull requests when asked for."""
    kinds = {"branches": "refs/heads/", "tags": "refs/tags/"} | ({"pullRequests": "refs/pr/"} if include_prs else {})
    found: dict[str, Any] = {"converts": []}
    for kind, prefix in kinds.items():
        found[kind] = [
            {"name": ref.removeprefix(prefix), "ref": ref, "targetCommit": commit_id}
            for ref, commit_id in repo.refs.items()
            if ref.startswith(prefix)
        ]
    return found
