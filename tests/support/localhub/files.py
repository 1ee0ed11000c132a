"""The routes that move file contents: resolve, and the fake CDN behind it."""

import hashlib
import hmac
import secrets
import time
from urllib.parse import quote

from localhub.blobs import Entry
from localhub.state import Call
from localhub.store import Commit, Repo
from localhub.wire import HubError, Reply, serve_content

_SIGNING_KEY = secrets.token_bytes(32)


def resolve(call: Call, org: str, name: str, revision: str, path: str) -> Reply:
    """Serve a file, or send the client to the CDN for it when it is an LFS file and the CDN is on."""
    repo = call.readable_repo(org, name)
    commit = repo.resolve(revision)
    entry = commit.tree.get(path)
    if entry is None:
        raise HubError(404, "Entry not found", code="EntryNotFound", headers={"X-Repo-Commit": commit.id})
    if path == "config.json" and call.request.method == "GET":
        repo.downloads += 1
    headers = _file_headers(call, repo, commit, path, entry)
    if entry.sha256 and call.state.settings.cdn:
        repo.objects[entry.sha256] = entry.content
        location = f"{call.state.cdn_endpoint}{_signed(repo, entry.sha256, call.state.settings.cdn_url_seconds)}"
        headers |= {"Location": location, "ETag": f'"{entry.oid}"'}
        return Reply(status=302, headers=headers, body=b"Found. Redirecting")
    return serve_content(entry.content, entry.size, call.request.range, headers)


def _file_headers(call: Call, repo: Repo, commit: Commit, path: str, entry: Entry) -> dict[str, str]:
    name = quote(path.rsplit("/", maxsplit=1)[-1])
    headers = {
        "X-Repo-Commit": commit.id,
        "Accept-Ranges": "bytes",
        "ETag": f'"{entry.etag}"',
        "Content-Disposition": f"inline; filename*=UTF-8''{name}",
    }
    if entry.sha256:
        headers |= {"X-Linked-Etag": f'"{entry.sha256}"', "X-Linked-Size": str(entry.size)}
    if entry.xet_hash:
        tokens = f"{call.state.endpoint}/api/models/{repo.repo_id}/xet-read-token/{commit.id}"
        headers |= {"X-Xet-Hash": entry.xet_hash, "Link": f'<{tokens}>; rel="xet-auth"'}
    return headers


def _signed(repo: Repo, sha256: str, seconds: float) -> str:
    path = f"/repos/{repo.repo_id}/{sha256}"
    expires = f"{time.time() + seconds:.3f}"
    return f"{path}?Expires={expires}&Signature={_signature(path, expires)}"


def _signature(path: str, expires: str) -> str:
    return hmac.new(_SIGNING_KEY, f"{path}\n{expires}".encode(), hashlib.sha256).hexdigest()


def cdn(call: Call, org: str, name: str, sha256: str) -> Reply:
    """Serve an LFS object to whoever holds a signed address that has not expired.

    Raises:
        AssertionError: the client sent its Hub token along, which must never reach a foreign origin.
    """
    if call.request.headers.get("Authorization") is not None:
        raise AssertionError("the client sent Authorization to the CDN")
    expires = call.request.first("Expires") or "0"
    genuine = hmac.compare_digest(_signature(call.request.path, expires), call.request.first("Signature") or "")
    if not genuine or float(expires) < time.time():
        raise HubError(403, "Request has expired or its signature is wrong")
    content = call.state.repos[f"{org}/{name}"].objects[sha256]
    return serve_content(content, content.size, call.request.range, {"ETag": f'"{sha256}"'})
