"""The routes that move file contents: resolve, and the fake CDN behind it."""

from urllib.parse import quote

from localhub.blobs import Entry
from localhub.signing import check_signature, signed
from localhub.state import Call
from localhub.store import Commit, Repo
from localhub.wire import HubError, Reply, serve_content


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
        path = signed(f"/repos/{repo.repo_id}/{entry.sha256}", call.state.settings.cdn_url_seconds)
        location = f"{call.state.cdn_endpoint}{path}"
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


def cdn(call: Call, org: str, name: str, sha256: str) -> Reply:
    """Serve an LFS object to whoever holds a signed address that has not expired."""
    check_signature(call.request)
    content = call.state.repos[f"{org}/{name}"].objects[sha256]
    return serve_content(content, content.size, call.request.range, {"ETag": f'"{sha256}"'})
