"""What the Hub tells of the base's repository over time: another name, a later birth, a history that was replaced.

Names of deleted owners can be registered again, and whoever does so serves new weights under the old declaration.
"""

from typing import Final

from scanner.errors import HubAuditError
from scanner.hub import Hub
from scanner.records import RepoFacts, Skip
from scanner.side.records import BaseHistory

LIMIT: Final = 12
"""Commits that are asked for: as many as ``scanner.lineage.revision`` asks for, so that a shared reader asks once."""


def base_history(
    candidate: RepoFacts, base: RepoFacts | None, declared: str | None, hub: Hub, skips: list[Skip]
) -> BaseHistory | None:
    """Gather what is known of the base's repository; None for folders and without a declared base.

    Args:
        candidate: facts of the candidate.
        base: facts of the base.
        declared: the name under which the base was asked for.
        hub: the reader.
        skips: takes what cannot be read.
    """
    if base is None or base.ref.repo_id is None:
        return None
    first, squashed = None, False
    try:
        commits = hub.commits(base.ref, LIMIT)
        first = commits[-1].created_at if 0 < len(commits) < LIMIT else None
        squashed = any(commit.title.lower().startswith("super-squash") for commit in commits)
    except HubAuditError as error:
        skips.append(Skip(what=f"history of {base.ref.name}", why=str(error)))
    return BaseHistory(
        asked=declared or base.ref.repo_id,
        found=base.ref.repo_id,
        created=_moment(base.hub.get("created_at")),
        candidate_created=_moment(candidate.hub.get("created_at")),
        first_commit=first,
        squashed=squashed,
    )


def _moment(value: object) -> str | None:
    return value if isinstance(value, str) else None
