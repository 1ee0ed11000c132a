"""What the Hub means by an error answer, as one of our errors with the next step in it.

The status alone says little: a missing, a private and a gated repository can all answer 401. ``X-Error-Code`` tells
them apart.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from scanner.errors import (
    CouldNotConclude,
    FileNotFound,
    HubRateLimited,
    HubUnreachable,
    RepoGated,
    RepoNotFound,
    RepoUnavailable,
    RevisionNotFound,
)
from scanner.paths import shown

_BAD_TOKEN = "invalid credentials in authorization header"  # noqa: S105  # the words of the Hub, not a secret
_DISABLED = "access to this resource is disabled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a request was about: enough to word its refusal. ``repo`` is empty for requests about no repository."""

    endpoint: str
    repo: str = ""
    revision: str | None = None
    path: str | None = None
    authenticated: bool = False

    def __str__(self) -> str:
        if not self.repo:
            return self.endpoint
        return f"{shown(self.path)} of {self.repo}" if self.path is not None else self.repo


def refusal(status: int, headers: Mapping[str, str], asked: Asked) -> CouldNotConclude:
    """Return (not raise) the error that says what this answer means and what to do next."""
    code = headers.get("X-Error-Code", "")
    words = headers.get("X-Error-Message", "").strip().lower().rstrip(".")
    if code == "GatedRepo":
        return _gated(asked)
    if code == "RevisionNotFound":
        return RevisionNotFound(
            f"{asked.repo} has no revision {shown(asked.revision or 'main')}; "
            f"see {asked.endpoint}/{asked.repo}/commits for those it has."
        )
    if code == "EntryNotFound" or (status == 404 and not code and asked.path is not None):
        return FileNotFound(f"{asked.repo} has no file {shown(asked.path or '')} at {asked.revision or 'main'}.")
    if status == 401 and words == _BAD_TOKEN:
        return RepoUnavailable(
            f"The Hub refused the token when asked for {asked}; replace HF_TOKEN by a valid one, or unset it."
        )
    if code == "RepoNotFound" or status in {401, 404}:
        return _not_found(asked)
    if status == 403 and words == _DISABLED:
        return RepoUnavailable(f"The Hub has disabled access to {asked.repo}; nothing of it can be read.")
    if status == 403:
        return RepoUnavailable(
            f"The Hub forbids reading {asked}; use a token that may read it (HF_TOKEN), or ask its owner for access."
        )
    if status == 429:
        return HubRateLimited(f"The Hub refuses further requests for now (rate limit, {asked}); run again later.")
    if status >= 500 or status == 408:
        return HubUnreachable(f"The Hub answered {status} when asked for {asked}; run again later.")
    return RepoUnavailable(f"The Hub answered {status} when asked for {asked}; look at {asked.endpoint}/{asked.repo}.")


def _gated(asked: Asked) -> RepoGated:
    terms = f"accept its terms at {asked.endpoint}/{asked.repo}"
    if asked.authenticated:
        return RepoGated(f"{asked.repo} is gated and this token may not read it; {terms} with its account.")
    return RepoGated(f"{asked.repo} is gated; {terms}, then set HF_TOKEN and run again.")


def _not_found(asked: Asked) -> RepoNotFound:
    if asked.authenticated:
        step = "check the spelling, or use a token that may read it (HF_TOKEN)"
    else:
        step = "check the spelling, or set HF_TOKEN if it is private"
    return RepoNotFound(f"{asked.repo or asked.endpoint} does not exist on the Hub or is private; {step}.")
