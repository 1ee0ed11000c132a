"""The routes that read: models, trees, histories, safetensors headers."""

import json
from typing import Any
from urllib.parse import quote

from localhub import cards, views
from localhub.state import Call
from localhub.store import Commit, Repo
from localhub.wire import HubError, Reply

EXPANDED_PAGE = 50
PATHS_INFO_LIMIT = 1000


def agent_harnesses(_call: Call) -> Reply:
    """Answer the client's question about coding agents: none are known."""
    return Reply.of_json({"standardEnvVars": [], "harnesses": {}})


def telemetry(_call: Call) -> Reply:
    """Take note of nothing."""
    return Reply()


def model_info(call: Call, org: str, name: str, revision: str = "main") -> Reply:
    """Describe one model; ``expand`` picks properties, ``blobs`` adds sizes and hashes."""
    repo = call.repo(org, name)
    commit = repo.resolve(revision)
    shown = views.model_json(
        repo,
        commit,
        others=call.state.repos.values(),
        expand=_expand(call),
        blobs=call.request.flag("blobs"),
        security=call.request.flag("securityStatus"),
    )
    return Reply.of_json(shown, headers={"X-Repo-Commit": commit.id})


def auth_check(call: Call, org: str, name: str) -> Reply:
    """Tell whether the caller may read the files."""
    call.readable_repo(org, name)
    return Reply.of_json({})


def list_models(call: Call) -> Reply:
    """List models: filters are joined by AND; pages follow ``Link``, which repeats the whole query."""
    request = call.request
    found = [repo for repo in call.state.repos.values() if _is_listed(call, repo)]
    found.sort(key=_sort_key(request.first("sort")), reverse=True)
    start = request.count("cursor", 0)
    size = min(request.count("limit", call.state.settings.page_size), call.state.settings.page_size)
    brief = not (request.flag("full") or request.flag("cardData") or request.flag("config"))
    page = [
        views.model_json(repo, repo.head, others=call.state.repos.values(), expand=_expand(call), brief=brief)
        for repo in found[start : start + size]
    ]
    return Reply.of_json(page, headers=_next_page(call, start + size, len(found)))


def _is_listed(call: Call, repo: Repo) -> bool:
    query = call.request.query
    if repo.repo_id.startswith("datasets/"):
        return False
    if repo.private and not (call.account and call.account.owns(repo)):
        return False
    card = cards.card_data(repo.head.tree)
    wanted = [tag for value in query.get("filter", []) for tag in value.split(",")]
    search = call.request.first("search")
    gated = call.request.first("gated")
    pipeline = call.request.first("pipeline_tag")
    return (
        set(wanted) <= set(cards.tags(card, repo.head.tree))
        and call.request.first("author") in {None, repo.owner}
        and (search is None or search.lower() in repo.repo_id.lower())
        and (gated is None or bool(repo.gated) == call.request.flag("gated"))
        and pipeline in {None, card.get("pipeline_tag")}
    )


def _sort_key(name: str | None) -> Any:
    keys = {
        "lastModified": lambda repo: repo.head.date,
        "createdAt": lambda repo: repo.created,
        "likes": lambda repo: repo.likes,
    }
    return keys.get(name or "", lambda repo: repo.downloads)


def tree(call: Call, org: str, name: str, revision: str, path: str = "") -> Reply:
    """List a folder, in pages."""
    repo = call.repo(org, name)
    commit = repo.resolve(revision)
    expand = call.request.flag("expand")
    items = views.tree_json(repo, commit, path, recursive=call.request.flag("recursive"), expand=expand)
    if path and not items:
        raise _no_entry(path, commit)
    size = min(EXPANDED_PAGE, call.state.settings.page_size) if expand else call.state.settings.page_size
    start = call.request.count("cursor", 0)
    headers = {"X-Repo-Commit": commit.id, **_next_page(call, start + size, len(items))}
    return Reply.of_json(items[start : start + size], headers=headers)


def paths_info(call: Call, org: str, name: str, revision: str) -> Reply:
    """Describe the named paths; those that do not exist are left out without a word."""
    repo = call.repo(org, name)
    commit = repo.resolve(revision)
    if "json" in call.request.headers.get("Content-Type", ""):
        asked = call.request.json()
        paths, expand = asked.get("paths", []), asked.get("expand") is True
    else:
        form = call.request.form()
        paths, expand = form.get("paths", []), form.get("expand", ["false"])[0].lower() == "true"
    if len(paths) > PATHS_INFO_LIMIT:
        raise HubError(413, "Too many paths")
    items = []
    for path in paths:
        if path in commit.tree:
            items.append(views.file_json(repo, commit, path, expand=expand))
        elif any(other.startswith(f"{path}/") for other in commit.tree):
            items.append(views.folder_json(repo, commit, path, expand=expand))
    return Reply.of_json(items, headers={"X-Repo-Commit": commit.id})


def refs(call: Call, org: str, name: str) -> Reply:
    """List branches and tags, with ``include_prs`` pull requests too."""
    return Reply.of_json(views.refs_json(call.repo(org, name), include_prs=call.request.flag("include_prs")))


def commits(call: Call, org: str, name: str, revision: str) -> Reply:
    """List the history of a revision, newest first, in pages."""
    repo = call.repo(org, name)
    history = [views.commit_json(commit) for commit in repo.history(repo.resolve(revision))]
    size = min(call.request.count("limit", EXPANDED_PAGE), call.state.settings.page_size)
    start = call.request.count("p", 0) * size
    headers = {"X-Total-Count": str(len(history)), **_next_page(call, start + size, len(history), key="p", step=size)}
    return Reply.of_json(history[start : start + size], headers=headers)


def safetensors_metadata(call: Call, org: str, name: str, path: str) -> Reply:
    """Return a shard index's metadata and the header of every shard, of the main branch."""
    repo = call.readable_repo(org, name)
    commit = repo.head
    if path not in commit.tree:
        raise _no_entry(path, commit)
    index = json.loads(commit.tree[path].read())
    headers = {shard: cards.safetensors_header(commit.tree[shard]) for shard in cards.shards(commit.tree[path])}
    return Reply.of_json({"index": {"metadata": index.get("metadata")}, "headers": headers})


def _expand(call: Call) -> list[str] | None:
    return call.request.query.get("expand") or call.request.query.get("expand[]")


def _no_entry(path: str, commit: Commit) -> HubError:
    return HubError(404, f"{path} does not exist", code="EntryNotFound", headers={"X-Repo-Commit": commit.id})


def _next_page(call: Call, next_start: int, total: int, *, key: str = "cursor", step: int = 1) -> dict[str, str]:
    if next_start >= total:
        return {}
    pairs = [(name, value) for name, values in call.request.query.items() for value in values if name != key]
    pairs.append((key, str(next_start // step)))
    query = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in pairs)
    return {"Link": f'<{call.state.endpoint}{call.request.path}?{query}>; rel="next"'}
