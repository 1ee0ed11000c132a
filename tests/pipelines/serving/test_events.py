import json

import pytest
from hooks import SHA, commented, pushed

from pipelines.serving.events import BadEvent, Ignored, Wanted, read_event


def read(event, **bot):
    return read_event(json.dumps(event).encode(), **({"bot": "audit-bot"} | bot))


def test_a_commit_on_main_is_wanted() -> None:
    assert read(pushed("org/model")) == Wanted(repo_id="org/model", cause=f"commit:{SHA}")


@pytest.mark.parametrize(
    "event",
    [
        pushed("org/model", ref="refs/pr/1"),
        pushed("org/model", ref="refs/tags/v1"),
        pushed("org/model", sha=None),
        pushed("org/model", sha="../../x"),
        pushed("org/model") | {"updatedRefs": None},
        pushed("org/model") | {"updatedRefs": ["x", 1, {}]},
        pushed("org/model") | {"event": {"scope": "repo", "action": "delete"}},
        pushed("org/model") | {"event": {"scope": "repo.config", "action": "update"}},
        pushed("org/model") | {"event": {"scope": "repo.contents", "action": "update"}},
        pushed("org/model") | {"repo": {"type": "dataset", "name": "org/model"}},
    ],
)
def test_what_changes_no_model_is_ignored(event) -> None:
    assert isinstance(read(event), Ignored)


def test_a_scope_yet_unknown_is_its_broader_one() -> None:
    event = pushed("org/model") | {"event": {"scope": "repo.content.lfs", "action": "update"}}
    assert isinstance(read(event), Wanted)


@pytest.mark.parametrize(
    "content", ["@audit-bot audit", "Hello\n  @Audit-Bot   AUDIT please\nthanks", "@audit-bot audit\r\n"]
)
def test_a_request_in_a_comment(content: str) -> None:
    wanted = read(commented("org/model", content, num=7, comment_id="abc1"))
    assert wanted == Wanted(repo_id="org/model", cause="comment:abc1", revision="refs/pr/7", thread=7)
    assert read(commented("org/model", content, num=7, pull_request=False)).revision == ""
    assert read(commented("org/model", content, opening=True)).thread == 1


@pytest.mark.parametrize(
    "event",
    [
        commented("org/model", "please @audit-bot audit"),
        commented("org/model", "@audit-bot auditorium"),
        commented("org/model", "@audit-bots audit"),
        commented("org/model", "> @audit-bot audit"),
        commented("org/model", "@audit-bot audit\n<!-- hubaudit:answer x -->"),
        commented("org/model", "@audit-bot audit", author="me"),
        commented("org/model", "@audit-bot audit") | {"comment": None},
        commented("org/model", "@audit-bot audit") | {"event": {"scope": "discussion.comment", "action": "update"}},
    ],
)
def test_what_is_no_request_is_ignored(event) -> None:
    assert isinstance(read(event, bot_id="me"), Ignored)


def test_nobody_listens_without_a_bot() -> None:
    assert isinstance(read(commented("org/model", "@None audit"), bot=None), Ignored)


def test_a_bots_name_is_no_pattern() -> None:
    assert isinstance(read(commented("org/model", "@axb audit"), bot="a.b"), Ignored)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"{" * 100_000,
        b"[" * 100_000,
        b'{"event": {"scope": "repo.content"}}',
        json.dumps(pushed("../../etc/passwd")).encode(),
        json.dumps(pushed("org/model\n")).encode(),
        json.dumps(pushed("--output=x")).encode(),
        json.dumps(pushed("https://huggingface.co/org/model")).encode(),
        json.dumps(commented("org/model", "@audit-bot audit", num=-1)).encode(),
        json.dumps(commented("org/model", "@audit-bot audit", comment_id="--> x")).encode(),
        json.dumps(commented("org/model", "@audit-bot audit") | {"repo": {"type": "model", "name": 5}}).encode(),
    ],
)
def test_what_is_no_event_is_refused(body: bytes) -> None:
    with pytest.raises(BadEvent):
        read_event(body, bot="audit-bot")
