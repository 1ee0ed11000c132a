"""Reads the events that the Hub sends: which ask for an audit, and which do not.

Format: https://huggingface.co/docs/hub/webhooks, version 3. An event is a stranger's text even after its secret was
checked: names and comments in it are anybody's.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scanner.refs import as_repo_id

MAX_EVENT_BYTES = 1 << 20
MAIN = "refs/heads/main"
OUR_COMMENT = "<!-- hubaudit:"
"""Begins every hidden marker of ours: a comment with one is our own, which must not make us answer ourselves."""

_COMMIT = re.compile(r"[0-9a-f]{40}")
_ID = re.compile(r"[0-9a-zA-Z]{1,64}")


class BadEvent(ValueError):  # noqa: N818
    """The body is not an event of the Hub."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """An audit that was asked for.

    ``revision`` is empty for the main branch. ``cause`` names the commit or the comment, so that the same event is
    recognised when it comes again. ``thread`` is where to answer, None when nobody asked in words.
    """

    repo_id: str
    cause: str
    revision: str = ""
    thread: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ignored:
    """An event that asks for nothing, and why."""

    why: str


def read_event(body: bytes, *, bot: str | None, bot_id: str | None = None) -> Wanted | Ignored:
    """Return what an event asks for.

    New commits on main ask for an audit of main; a comment that begins a line with ``@bot audit`` asks for one of the
    pull request that it stands in, or of main in a discussion.

    Args:
        body: the JSON.
        bot: the user name that is spoken to; None when comments are not listened to.
        bot_id: the id of that user, whose own comments are ignored.

    Raises:
        BadEvent: it is not an event.
    """
    try:
        event = json.loads(body)
        scope, action = str(event["event"]["scope"]), str(event["event"]["action"])
        kind, name = event["repo"]["type"], event["repo"]["name"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadEvent("not an event of a webhook, version 3") from error
    if kind != "model":
        return Ignored(why="not a model")
    repo_id = as_repo_id(name)
    if repo_id is None or repo_id != name:
        raise BadEvent("the repository has an impossible name")
    if _within(scope, "repo.content"):
        return _pushed(repo_id, event)
    if _within(scope, "discussion") and action == "create":
        return _said(repo_id, event, bot, bot_id)
    return Ignored(why="nothing that changes the model, nor a request")


def _within(scope: str, wanted: str) -> bool:
    """Whether a scope is the wanted one or a narrower one, as the Hub asks its listeners to read scopes."""
    return scope == wanted or scope.startswith(f"{wanted}.")


def _pushed(repo_id: str, event: Mapping[str, Any]) -> Wanted | Ignored:
    refs = event.get("updatedRefs")
    for ref in refs if isinstance(refs, list) else []:
        if isinstance(ref, dict) and ref.get("ref") == MAIN and _COMMIT.fullmatch(str(ref.get("newSha"))):
            return Wanted(repo_id=repo_id, cause=f"commit:{ref['newSha']}")
    return Ignored(why="no new commit on main")


def _said(repo_id: str, event: Mapping[str, Any], bot: str | None, bot_id: str | None) -> Wanted | Ignored:
    comment, discussion = event.get("comment"), event.get("discussion")
    if bot is None or not isinstance(comment, dict) or not isinstance(discussion, dict):
        return Ignored(why="comments are not listened to" if bot is None else "no comment")
    content, number, identity = comment.get("content"), discussion.get("num"), comment.get("id")
    author = comment.get("author")
    if comment.get("hidden") or not isinstance(content, str) or OUR_COMMENT in content:
        return Ignored(why="a hidden comment, or one of our own")
    if bot_id and isinstance(author, dict) and author.get("id") == bot_id:
        return Ignored(why="a comment of our own")
    if not re.search(rf"(?im)^[ \t]*@{re.escape(bot)}[ \t]+audit\b", content):
        return Ignored(why="the comment does not ask for an audit")
    if not isinstance(number, int) or isinstance(number, bool) or number < 1 or not _ID.fullmatch(str(identity)):
        raise BadEvent("the comment has no number or id")
    revision = f"refs/pr/{number}" if discussion.get("isPullRequest") is True else ""
    return Wanted(repo_id=repo_id, cause=f"comment:{identity}", revision=revision, thread=number)
