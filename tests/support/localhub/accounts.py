"""Who may do what: tokens with roles, private and gated repositories."""

import hashlib
from dataclasses import dataclass
from typing import Literal

from localhub.store import Repo
from localhub.wire import HubError

Role = Literal["read", "write"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """The holder of a token: a user, the token's role, and the organisations the user may write to."""

    user: str
    role: Role
    orgs: frozenset[str] = frozenset()

    def owns(self, repo: Repo) -> bool:
        """Tell whether the repository lies in a namespace of the user."""
        return repo.owner == self.user or repo.owner in self.orgs


def token_for(user: str, role: Role) -> str:
    """Return a token that looks like the Hub's; the same one for the same user and role."""
    return "hf_" + hashlib.sha256(f"{user}:{role}".encode()).hexdigest()[:34]


def authenticate(tokens: dict[str, Account], authorization: str | None) -> Account | None:
    """Return the account of an ``Authorization`` header, None without one.

    Raises:
        HubError: 401 when the token is unknown.
    """
    if not authorization:
        return None
    account = tokens.get(authorization.removeprefix("Bearer "))
    if account is None:
        raise HubError(401, "Invalid credentials in Authorization header")
    return account


def require_writer(account: Account | None) -> Account:
    """Return the account when its token may write.

    Raises:
        HubError: 401 when anonymous, 403 when the token's role is read.
    """
    if account is None:
        raise HubError(401, "Invalid username or password.")
    if account.role != "write":
        raise HubError(403, "Forbidden: this token has the role read, and the action needs the role write.")
    return account


def require_visible(account: Account | None, repo: Repo | None) -> Repo:
    """Return the repository when the account may know of it.

    Raises:
        HubError: RepoNotFound (401 when anonymous, else 404); 403 when the repository is disabled.
    """
    if repo is None or (repo.private and not (account and (account.owns(repo) or account.user in repo.readers))):
        if account is None:
            raise HubError(401, "Invalid username or password.", code="RepoNotFound")
        raise HubError(404, "Repository not found", code="RepoNotFound")
    if repo.disabled:
        raise HubError(403, "Access to this resource is disabled.")
    return repo


def require_owner(account: Account, repo: Repo) -> None:
    """Check that the account may change the repository itself.

    Raises:
        HubError: 403.
    """
    if not account.owns(repo):
        raise HubError(403, f"Forbidden: {account.user} does not have write access to {repo.repo_id}.")


def require_discussions(repo: Repo) -> None:
    """Check that the owner accepts discussions and pull requests.

    Raises:
        HubError: 403.
    """
    if not repo.pull_requests:
        raise HubError(403, "Discussions and pull requests are disabled for this repository.")


def require_content(account: Account | None, repo: Repo, endpoint: str) -> None:
    """Check that the account may read the files of a repository.

    Raises:
        HubError: GatedRepo (401 when anonymous, else 403).
    """
    if not repo.gated or (account and (account.owns(repo) or account.user in repo.readers)):
        return
    page = f"{endpoint}/{repo.repo_id}"
    if account is None:
        message = f"Access to model {repo.repo_id} is restricted. You must have access to it and be authenticated."
        raise HubError(401, f"{message} Please log in. {page}", code="GatedRepo")
    message = f"Access to model {repo.repo_id} is restricted and you are not in the authorized list."
    raise HubError(403, f"{message} Visit {page} to ask for access.", code="GatedRepo")
