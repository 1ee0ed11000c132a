import copy

import pytest

from scanner.errors import (
    FileNotFound,
    HubRateLimited,
    HubUnreachable,
    RepoGated,
    RepoNotFound,
    RepoUnavailable,
    RevisionNotFound,
)
from scanner.hub_refusals import Asked, refusal

REPO = Asked(endpoint="https://huggingface.co", repo="org/name", revision="dev")
FILE = Asked(endpoint="https://huggingface.co", repo="org/name", revision="a" * 40, path="x\x1b.json")
SIGNED_IN = Asked(endpoint="https://huggingface.co", repo="org/name", authenticated=True)


@pytest.mark.parametrize(
    ("status", "headers", "asked", "kind", "words"),
    [
        (401, {"X-Error-Code": "GatedRepo"}, FILE, RepoGated, "accept its terms at https://huggingface.co/org/name, then set HF_TOKEN"),
        (403, {"X-Error-Code": "GatedRepo"}, SIGNED_IN, RepoGated, "this token may not read it"),
        (404, {"X-Error-Code": "RevisionNotFound"}, REPO, RevisionNotFound, "org/name has no revision 'dev'"),
        (404, {"X-Error-Code": "EntryNotFound"}, FILE, FileNotFound, "has no file 'x\\x1b.json'"),
        (404, {}, FILE, FileNotFound, "has no file"),
        (401, {"X-Error-Code": "RepoNotFound"}, REPO, RepoNotFound, "check the spelling, or set HF_TOKEN if it is private"),
        (404, {"X-Error-Code": "RepoNotFound"}, SIGNED_IN, RepoNotFound, "use a token that may read it"),
        (404, {"X-Error-Code": "RepoNotFound"}, FILE, RepoNotFound, "does not exist on the Hub or is private"),
        (401, {}, REPO, RepoNotFound, "does not exist on the Hub or is private"),
        (401, {"X-Error-Message": "Invalid credentials in Authorization header"}, REPO, RepoUnavailable, "refused the token"),
        (403, {"X-Error-Message": "Access to this resource is disabled."}, REPO, RepoUnavailable, "has disabled access"),
        (403, {}, FILE, RepoUnavailable, "forbids reading"),
        (429, {}, REPO, HubRateLimited, "rate limit"),
        (503, {}, REPO, HubUnreachable, "answered 503"),
        (418, {}, REPO, RepoUnavailable, "answered 418"),
    ],
)  # fmt: skip
def test_each_refusal_has_its_class_and_its_next_step(status, headers, asked, kind, words) -> None:
    error = refusal(status, headers, asked)
    assert type(error) is kind
    assert "org/name" in str(error)
    assert words in str(error)
    assert str(error).isprintable()
    assert str(error).endswith(".")
    again = copy.copy(error)  # rebuilt as a worker process does
    assert (type(again), str(again)) == (kind, str(error))
