"""Events as the Hub sends them (https://huggingface.co/docs/hub/webhooks, version 3), to be bent by tests."""

from typing import Any

SHA = "575db8b7a51b6f85eb06eee540738584589f131c"


def _event(scope: str, action: str, repo_id: str) -> dict[str, Any]:
    return {
        "event": {"action": action, "scope": scope},
        "repo": {
            "type": "model",
            "name": repo_id,
            "id": "621ffdc036468d709f17434d",
            "private": False,
            "url": {"web": f"https://hub/{repo_id}", "api": f"https://hub/api/models/{repo_id}"},
            "owner": {"id": "628b753283ef59b5be89e937"},
        },
        "webhook": {"id": "6390e855e30d9209411de93b", "version": 3},
    }


def pushed(repo_id: str, *, sha: str | None = SHA, ref: str = "refs/heads/main") -> dict[str, Any]:
    """New commits on a branch."""
    event = _event("repo.content", "update", repo_id)
    event["repo"]["headSha"] = SHA
    event["updatedRefs"] = [{"ref": ref, "oldSha": None, "newSha": sha}]
    return event


def commented(
    repo_id: str,
    content: str,
    *,
    num: int = 1,
    pull_request: bool = True,
    comment_id: str = "6398872887bfcfb93a306f18",
    opening: bool = False,
    author: str = "61d2000c3c2083e1c08af22d",
) -> dict[str, Any]:
    """A new comment, or a thread whose description it is."""
    event = _event("discussion" if opening else "discussion.comment", "create", repo_id)
    event["discussion"] = {
        "id": "639885d811ae2bad2b7ba461",
        "title": "Hello!",
        "status": "open",
        "author": {"id": author},
        "isPullRequest": pull_request,
        "num": num,
    } | ({"changes": {"base": "refs/heads/main"}} if pull_request else {})
    event["comment"] = {"id": comment_id, "author": {"id": author}, "content": content, "hidden": False}
    return event
