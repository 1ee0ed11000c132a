"""The routes that write: repositories, uploads and commits."""

import base64
import binascii
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from localhub import cards
from localhub.accounts import Account, require_discussions, require_owner, require_visible, require_writer
from localhub.blobs import Entry, InMemory, entry_for, git_sha1, lfs_entry, wants_lfs
from localhub.discussions import Discussion
from localhub.signing import check_signature, signed
from localhub.state import Call
from localhub.store import MAIN, Repo
from localhub.wire import HubError, Reply

STALE = "The branch was updated since you opened this page. Please refresh and try again."
UPLOAD_SECONDS = 3600
LFS_JSON = {"Content-Type": "application/vnd.git-lfs+json"}


def whoami(call: Call) -> Reply:
    """Name the holder of the token."""
    account = call.account
    if account is None:
        raise HubError(401, "Invalid username or password.")
    auth = {"type": "access_token", "accessToken": {"displayName": "local", "role": account.role}}
    orgs = [{"name": org, "type": "org", "roleInOrg": "write"} for org in sorted(account.orgs)]
    return Reply.of_json({"type": "user", "name": account.user, "fullname": account.user, "orgs": orgs, "auth": auth})


def validate_yaml(call: Call) -> Reply:
    """Check a model card's metadata; the client expects JSON on failure too."""
    errors, warnings = cards.check_card(str(call.request.json().get("content", "")))
    verdict = {
        "errors": [{"message": message} for message in errors],
        "warnings": [{"message": message} for message in warnings],
    }
    return Reply.of_json(verdict, status=400 if errors else 200)


def create_repo(call: Call) -> Reply:
    """Create an empty model repository, or dataset, in a namespace of the caller."""
    account = require_writer(call.account)
    asked = call.request.json()
    repo_id = f"{asked.get('organization') or account.user}/{asked.get('name')}"
    if not cards.REPO_ID.fullmatch(repo_id):
        raise HubError(400, "Invalid repository name")
    repo_id = f"datasets/{repo_id}" if asked.get("type") == "dataset" else repo_id
    url = f"{call.state.endpoint}/{repo_id}"
    if repo_id in call.state.repos:
        return Reply.of_json({"error": "You already created this model repo", "url": url}, status=409)
    private = asked.get("visibility") == "private" or asked.get("private") is True
    repo = Repo(repo_id=repo_id, created=call.state.now(), private=private)
    require_owner(account, repo)
    first = {".gitattributes": entry_for(".gitattributes", "*.safetensors filter=lfs diff=lfs merge=lfs -text\n")}
    repo.commit(MAIN, changes=first, title="initial commit", author=account.user, date=call.state.now())
    call.state.repos[repo_id] = repo
    return Reply.of_json({"url": url, "name": repo_id})


def preupload(call: Call, org: str, name: str, revision: str) -> Reply:
    """Tell for each file whether it goes into the commit or into LFS, and what is there already."""
    account = require_writer(call.account)
    repo = call.repo(org, name)
    _check_may_commit(call, account, repo, revision)
    commit = repo.resolve(revision)
    answers = []
    for file in call.request.json().get("files", []):
        lfs = wants_lfs(file["path"], file["size"], base64.b64decode(file["sample"]))
        answer = {"path": file["path"], "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": False}
        if file["path"] in commit.tree:
            answer["oid"] = commit.tree[file["path"]].etag
        answers.append(answer)
    return Reply.of_json({"files": answers, "commitOid": commit.id})


def lfs_batch(call: Call, org: str, name: str) -> Reply:
    """Hand out upload addresses; objects that are stored get none (``null`` would crash the client)."""
    require_writer(call.account)
    repo = call.repo(org, name)
    answers = []
    for wanted in call.request.json().get("objects", []):
        answer: dict[str, Any] = {"oid": wanted["oid"], "size": wanted["size"]}
        if repo.find_object(wanted["oid"]) is None:
            path = signed(f"/repos/{repo.repo_id}/{wanted['oid']}", UPLOAD_SECONDS)
            verify = f"{call.state.endpoint}/{repo.repo_id}.git/info/lfs/objects/verify"
            answer["actions"] = {"upload": {"href": f"{call.state.cdn_endpoint}{path}"}, "verify": {"href": verify}}
        answers.append(answer)
    return Reply.of_json({"transfer": "basic", "objects": answers}, headers=LFS_JSON)


def lfs_upload(call: Call, org: str, name: str, sha256: str) -> Reply:
    """Store an LFS object whose bytes hash to its name."""
    check_signature(call.request)
    content = InMemory(call.request.body)
    if content.sha256() != sha256:
        raise HubError(400, "The bytes do not have the announced SHA-256")
    call.state.repos[f"{org}/{name}"].objects[sha256] = content
    return Reply(headers={"ETag": f'"{sha256}"'})


def lfs_verify(call: Call, org: str, name: str) -> Reply:
    """Confirm that an LFS object arrived."""
    repo = require_visible(call.account, call.state.repos.get(f"{org}/{name}"))
    asked = call.request.json()
    stored = repo.find_object(str(asked.get("oid")))
    if stored is None or stored.size != asked.get("size"):
        raise HubError(404, "There is no such object")
    return Reply.of_json({}, headers=LFS_JSON)


def xet_token(call: Call, org: str, name: str, revision: str) -> Reply:
    """Hand out access to the Xet store, where one is configured."""
    call.readable_repo(org, name)
    cas_url = call.state.settings.xet_cas_url
    if cas_url is None:
        raise HubError(404, f"Xet is not available for {revision}")
    expires = int(time.time()) + UPLOAD_SECONDS
    headers = {
        "X-Xet-Cas-Url": cas_url,
        "X-Xet-Access-Token": "local",
        "X-Xet-Token-Expiration": str(expires),
    }
    return Reply.of_json({"casUrl": cas_url, "accessToken": "local", "exp": expires}, headers=headers)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Changes:
    title: str
    description: str
    parent: str | None
    changes: Mapping[str, Entry]
    deletions: tuple[str, ...]


def commit(call: Call, org: str, name: str, revision: str) -> Reply:
    """Commit to a branch or a pull request, or with ``create_pr`` open a pull request."""
    account = require_writer(call.account)
    repo = call.repo(org, name)
    ref = _check_may_commit(call, account, repo, revision)
    asked = _read_changes(call.request.body, repo)
    _check_card(asked)
    if call.request.flag("create_pr"):
        return _open_pull_request(call, account, repo, ref, asked)
    if asked.parent and not repo.refs[ref].startswith(asked.parent):
        raise HubError(412, STALE)
    discussion = next((one for one in repo.discussions.values() if one.head_ref == ref), None)
    commit_id = _commit(call, account, repo, ref, asked, discussion)
    return Reply.of_json(_receipt(call, repo, commit_id))


def _check_may_commit(call: Call, account: Account, repo: Repo, revision: str) -> str:
    ref = repo.find_ref(revision)
    if ref is None:
        raise HubError(404, f"Invalid rev id: {revision}", code="RevisionNotFound")
    if call.request.flag("create_pr"):
        require_discussions(repo)
    elif not account.owns(repo) and account.user not in [
        one.author for one in repo.discussions.values() if one.head_ref == ref
    ]:
        raise HubError(403, "Forbidden: pass `create_pr=1` as a query parameter to create a Pull Request")
    return ref


def _open_pull_request(call: Call, account: Account, repo: Repo, ref: str, asked: _Changes) -> Reply:
    start = repo.resolve(asked.parent or ref)
    discussion = start_discussion(
        call, repo, author=account.user, title=asked.title, description=asked.description, base_ref=ref
    )
    discussion.status = "open"
    repo.refs[discussion.head_ref] = start.id
    try:
        commit_id = _commit(call, account, repo, discussion.head_ref, asked, discussion)
    except HubError:
        del repo.refs[discussion.head_ref], repo.discussions[discussion.num]
        raise
    page = f"{call.state.endpoint}/{repo.repo_id}/discussions/{discussion.num}"
    return Reply.of_json({**_receipt(call, repo, commit_id), "pullRequestUrl": page})


def start_discussion(
    call: Call, repo: Repo, *, author: str, title: str, description: str, base_ref: str | None
) -> Discussion:
    """Number and store a new discussion; pull requests (``base_ref``) begin as drafts."""
    num = max(repo.discussions, default=0) + 1
    now = call.state.now()
    discussion = Discussion(
        num=num,
        repo_id=repo.repo_id,
        title=title,
        author=author,
        date=now,
        status="draft" if base_ref else "open",
        base_ref=base_ref,
    )
    repo.discussions[num] = discussion
    if description:
        discussion.say(author, now, description)
    return discussion


def _commit(call: Call, account: Account, repo: Repo, ref: str, asked: _Changes, discussion: Discussion | None) -> str:
    made = repo.commit(
        ref,
        changes=asked.changes,
        deletions=asked.deletions,
        title=asked.title,
        message=asked.description,
        author=account.user,
        date=call.state.now(),
    )
    if discussion is not None:
        discussion.record("commit", account.user, made.date, subject=made.title, oid=made.id)
    return made.id


def _receipt(call: Call, repo: Repo, commit_id: str) -> dict[str, Any]:
    url = f"{call.state.endpoint}/{repo.repo_id}/commit/{commit_id}"
    return {"success": True, "commitOid": commit_id, "commitUrl": url, "hookOutput": ""}


def _check_card(asked: _Changes) -> None:
    readme = asked.changes.get("README.md")
    errors = cards.check_card(readme.read().decode("utf-8", "replace"))[0] if readme else []
    if errors:
        raise HubError(400, f"Invalid metadata in README.md: {'; '.join(errors)}")


def _read_changes(body: bytes, repo: Repo) -> _Changes:
    """Read the lines of a commit.

    Raises:
        HubError: 400 when a line has the wrong shape, a path leaves the repository, or an LFS object is missing.
    """
    header: dict[str, Any] = {}
    changes: dict[str, Entry] = {}
    deletions = []
    try:
        for item in (json.loads(line) for line in body.splitlines() if line.strip()):
            key, value = item["key"], item["value"]
            if key == "header":
                header = value
                continue
            path = _checked_path(value["path"])
            if key == "file":
                content = base64.b64decode(value["content"], validate=True)
                changes[path] = Entry(content=InMemory(content), size=len(content), oid=git_sha1(content))
            elif key == "lfsFile":
                changes[path] = _uploaded(repo, value["oid"])
            elif key in {"deletedFile", "deletedFolder"}:
                deletions.append(path if key == "deletedFile" else f"{path}/")
            else:
                raise HubError(400, f"Unknown operation {key}")
        title = str(header["summary"])
    except (ValueError, KeyError, TypeError, binascii.Error) as error:
        raise HubError(400, "The commit is malformed") from error
    return _Changes(
        title=title,
        description=str(header.get("description") or ""),
        parent=header.get("parentCommit"),
        changes=changes,
        deletions=tuple(deletions),
    )


def _checked_path(path: str) -> str:
    parts = path.rstrip("/").split("/")
    if any(part in {"", ".", "..", ".git"} for part in parts):
        raise HubError(400, "A path must stay inside the repository")
    return "/".join(parts)


def _uploaded(repo: Repo, sha256: str) -> Entry:
    content = repo.find_object(sha256)
    if content is None:
        raise HubError(400, f"LFS pointer pointed to a file that does not exist: {sha256}")
    return lfs_entry(content, sha256)
