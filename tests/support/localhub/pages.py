"""The pages for people: a repository with its card, and a discussion with its diff. All text is escaped."""

import html

from localhub import merging
from localhub.discussions import Discussion, Event
from localhub.state import Call
from localhub.store import Repo
from localhub.wire import HubError, Reply

HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
}
STYLE = """
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
pre { overflow-x: auto; padding: .75rem; border: 1px solid #8886; border-radius: .4rem; font-size: .85rem }
article { border-left: 3px solid #8886; padding-left: 1rem; margin: 1.5rem 0 }
article pre { white-space: pre-wrap; overflow-wrap: anywhere }
.muted { opacity: .7 } .added { color: #1a7f37 } .removed { color: #cf222e } .hunk { color: #8250df }
@media (prefers-color-scheme: dark) {
  .added { color: #3fb950 } .removed { color: #ff7b72 } .hunk { color: #d2a8ff }
}
"""


def repository(call: Call, org: str, name: str) -> Reply:
    """Show the files, the discussions and the card (as text) of a repository."""
    repo = call.readable_repo(org, name)
    readme = repo.head.tree.get("README.md")
    files = "".join(f"<li>{html.escape(path)}</li>" for path in sorted(repo.head.tree))
    talks = "".join(
        f'<li><a href="/{html.escape(repo.repo_id)}/discussions/{one.num}">#{one.num} {html.escape(one.title)}</a>'
        f" ({one.status})</li>"
        for one in repo.discussions.values()
    )
    card = html.escape(readme.read().decode("utf-8", "replace")) if readme else ""
    body = f"<h2>Files</h2><ul>{files}</ul><h2>Community</h2><ul>{talks}</ul><h2>Card</h2><pre>{card}</pre>"
    return _page(repo.repo_id, f"<p class=muted>{repo.head.id}</p>{body}")


def discussion(call: Call, org: str, name: str, num: str) -> Reply:
    """Show a discussion, and for a pull request its diff."""
    repo = call.readable_repo(org, name)
    one = repo.discussions.get(int(num))
    if one is None:
        raise HubError(404, "Discussion not found")
    kind = f"pull request into {one.base_ref}" if one.is_pull_request else "discussion"
    head = f"<p class=muted>{html.escape(repo.repo_id)} · {kind} · {one.status} · by {html.escape(one.author)}</p>"
    events = "".join(_event(event) for event in one.events)
    return _page(f"#{one.num} {one.title}", head + events + _diff(repo, one))


def _event(event: Event) -> str:
    author = html.escape(event.author)
    if event.kind == "comment":
        text = html.escape(event.details["latest"]["raw"])
        return f"<article><p class=muted>{author} · {event.date}</p><pre>{text}</pre></article>"
    if event.kind == "commit":
        what = f"committed {event.details['oid'][:8]}: {event.details['subject']}"
    elif event.kind == "title-change":
        what = f"changed the title from {event.details['from']} to {event.details['to']}"
    else:
        what = f"changed the status to {event.details['status']}"
    return f"<p class=muted>{author} {html.escape(what)} · {event.date}</p>"


def _diff(repo: Repo, one: Discussion) -> str:
    if not one.is_pull_request:
        return ""
    lines = [_diff_line(line) for line in merging.pull_request_diff(repo, one).split("\n")]
    return f"<h2>Files changed</h2><pre>{chr(10).join(lines)}</pre>"


def _diff_line(line: str) -> str:
    classes = {"+": "added", "-": "removed", "@": "hunk"}
    text = html.escape(line)
    return f"<span class={classes[line[0]]}>{text}</span>" if line[:1] in classes else text


def _page(title: str, body: str) -> Reply:
    shown = html.escape(title)
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{shown}</title>'
        f"<style>{STYLE}</style></head><body><h1>{shown}</h1>{body}</body></html>"
    )
    return Reply(headers=HEADERS, body=page.encode())
