"""The routes of discussions and pull requests."""

from localhub import discussions, merging
from localhub.accounts import Account, require_discussions, require_owner, require_writer
from localhub.api_write import start_discussion
from localhub.discussions import Discussion
from localhub.state import Call
from localhub.store import MAIN, Repo
from localhub.wire import HubError, Reply

PAGE = 10
OPEN = frozenset({"draft", "open"})


def list_discussions(call: Call, org: str, name: str) -> Reply:
    """List, newest first; ``type``, ``status`` and ``author`` select, ``p`` turns pages from 0."""
    repo = _repo(call, org, name)
    found = [one for one in reversed(repo.discussions.values()) if _is_listed(call, one)]
    start = call.request.count("p", 0) * PAGE
    shown = [discussions.summary_json(one) for one in found[start : start + PAGE]]
    closed = sum(one.status not in OPEN for one in repo.discussions.values())
    return Reply.of_json({"count": len(found), "start": start, "numClosedDiscussions": closed, "discussions": shown})


def _is_listed(call: Call, discussion: Discussion) -> bool:
    kind, status = call.request.first("type"), call.request.first("status")
    return (
        kind in {None, "all", "pull_request" if discussion.is_pull_request else "discussion"}
        and status in {None, "all", "open" if discussion.status in OPEN else "closed"}
        and call.request.first("author") in {None, discussion.author}
    )


def create(call: Call, org: str, name: str) -> Reply:
    """Open a discussion, or a draft pull request without commits."""
    account = require_writer(call.account)
    repo = _repo(call, org, name)
    asked = call.request.json()
    title = str(asked.get("title") or "").strip()
    if len(title) < 3:
        raise HubError(400, '"title" must have at least 3 characters')
    discussion = start_discussion(
        call,
        repo,
        author=account.user,
        title=title,
        description=str(asked.get("description") or ""),
        base_ref=MAIN if asked.get("pullRequest") else None,
    )
    if discussion.is_pull_request:
        repo.refs[discussion.head_ref] = repo.head.id
    return Reply.of_json({"num": discussion.num, "pullRequest": discussion.is_pull_request})


def details(call: Call, org: str, name: str, num: str) -> Reply:
    """Show a discussion with its events; ``diff=1`` adds what a pull request changes."""
    repo, discussion = _discussion(call, org, name, num)
    wanted = discussion.is_pull_request and call.request.flag("diff")
    diff = merging.pull_request_diff(repo, discussion) if wanted else None
    return Reply.of_json(discussions.details_json(discussion, diff))


def comment(call: Call, org: str, name: str, num: str) -> Reply:
    """Add a comment."""
    account, _, discussion = _for_writing(call, org, name, num)
    event = discussion.say(account.user, call.state.now(), _text(call, "comment"))
    return Reply.of_json({"newMessage": discussions.event_json(event)}, status=201)


def edit_comment(call: Call, org: str, name: str, num: str, comment_id: str) -> Reply:
    """Replace the text of one's own comment; the old one goes into its history."""
    account, _, discussion = _for_writing(call, org, name, num)
    event = discussion.event(comment_id)
    if event is None or event.kind != "comment":
        raise HubError(404, "Comment not found")
    if event.author != account.user:
        raise HubError(403, "Only the author of a comment may edit it.")
    event.details["history"].append(event.details["latest"])
    event.details["latest"] = discussions.comment_version(account.user, call.state.now(), _text(call, "content"))
    event.details |= {"edited": True, "numEdits": event.details["numEdits"] + 1}
    return Reply.of_json({"updatedComment": discussions.event_json(event)})


def hide_comment(call: Call, org: str, name: str, num: str, comment_id: str) -> Reply:
    """Hide a comment for good."""
    account, repo, discussion = _for_writing(call, org, name, num)
    event = discussion.event(comment_id)
    if event is None or event.kind != "comment":
        raise HubError(404, "Comment not found")
    if event.author != account.user:
        require_owner(account, repo)
    event.details["latest"] = discussions.comment_version(account.user, call.state.now(), "")
    event.details["hidden"] = True
    return Reply.of_json({"updatedComment": discussions.event_json(event)})


def change_status(call: Call, org: str, name: str, num: str) -> Reply:
    """Open or close."""
    account, _, discussion = _for_changing(call, org, name, num)
    status = call.request.json().get("status")
    if status not in {"open", "closed"}:
        raise HubError(400, '"status" must be one of [open, closed]')
    if discussion.status == "merged":
        raise HubError(409, "This pull request has been merged")
    _say_if_any(call, account, discussion)
    discussion.status = "open" if status == "open" else "closed"
    event = discussion.record("status-change", account.user, call.state.now(), status=status)
    return Reply.of_json({"newStatus": discussions.event_json(event)})


def change_title(call: Call, org: str, name: str, num: str) -> Reply:
    """Give another title."""
    account, _, discussion = _for_changing(call, org, name, num)
    title = _text(call, "title")
    words = {"from": discussion.title, "to": title}
    event = discussion.record("title-change", account.user, call.state.now(), **words)
    discussion.title = title
    return Reply.of_json({"newTitle": discussions.event_json(event)})


def merge(call: Call, org: str, name: str, num: str) -> Reply:
    """Merge a pull request, as an owner."""
    account, repo, discussion = _for_writing(call, org, name, num)
    require_owner(account, repo)
    commit = merging.merge(repo, discussion, author=account.user, date=call.state.now())
    event = discussion.record("status-change", account.user, commit.date, status="merged")
    _say_if_any(call, account, discussion)
    return Reply.of_json({"mergeCommitId": commit.id, "newStatus": discussions.event_json(event)})


def _repo(call: Call, org: str, name: str) -> Repo:
    repo = call.repo(org, name)
    require_discussions(repo)
    return repo


def _discussion(call: Call, org: str, name: str, num: str) -> tuple[Repo, Discussion]:
    repo = _repo(call, org, name)
    discussion = repo.discussions.get(int(num))
    if discussion is None:
        raise HubError(404, "Discussion not found")
    return repo, discussion


def _for_writing(call: Call, org: str, name: str, num: str) -> tuple[Account, Repo, Discussion]:
    account = require_writer(call.account)
    return account, *_discussion(call, org, name, num)


def _for_changing(call: Call, org: str, name: str, num: str) -> tuple[Account, Repo, Discussion]:
    account, repo, discussion = _for_writing(call, org, name, num)
    if discussion.author != account.user:
        require_owner(account, repo)
    return account, repo, discussion


def _text(call: Call, key: str) -> str:
    text = call.request.json().get(key)
    if not isinstance(text, str) or not text.strip():
        raise HubError(400, f'"{key}" is not allowed to be empty')
    return text


def _say_if_any(call: Call, account: Account, discussion: Discussion) -> None:
    remark = call.request.json().get("comment")
    if isinstance(remark, str) and remark.strip():
        discussion.say(account.user, call.state.now(), remark)
