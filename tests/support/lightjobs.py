"""Jobs for tests of fleets that cost nothing: what a job does is spelled in the name of its repository.

``calm/x`` finishes, ``slow/x`` sleeps first, ``broken/x`` fails for good, ``flaky/x`` fails for now, ``same/x`` is
unchanged, ``bug/x`` raises, ``deadly/x`` kills its process, ``stuck/x`` never ends, ``fat/x`` takes 200 MB.
Each finished job appends a line to the journal, in one write.
"""

import json
import os
import signal
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha1, sha256
from pathlib import Path

from pipelines.engines.seam import Answer, Entry, Failed, Noted, ScanJob, Scanned, Unchanged

KEPT: list[bytearray] = []


@dataclass(frozen=True, kw_only=True)
class Setup:
    """``pause`` is the length of every job in seconds; ``journal`` is where finished jobs are written down."""

    journal: Path | None = None
    pause: float = 0.0


def entry(**options: object) -> Entry:
    """The entry that an engine takes."""
    return Entry(function="lightjobs:prepare", setup=Setup(**options))


def unable(_setup: object) -> Callable[[ScanJob], Answer]:
    """An entry point that cannot be opened."""
    raise SystemExit(9)


def prepare(setup: Setup) -> Callable[[ScanJob], Answer]:
    """Return the work."""

    def work(job: ScanJob) -> Answer:
        kind = job.repo_id.partition("/")[0]
        time.sleep(setup.pause)
        match kind:
            case "slow":
                time.sleep(0.5)
            case "broken":
                return Failed(reason=f"{job.repo_id} does not exist.", cause="RepoNotFound", transient=False)
            case "flaky":
                return Failed(reason="The Hub answered 503.", cause="HubUnreachable", transient=True)
            case "same":
                return Unchanged(requests=1)
            case "bug":
                raise ZeroDivisionError("a bug")
            case "deadly":
                os.kill(os.getpid(), signal.SIGKILL)
            case "stuck":
                time.sleep(3600)
            case "fat":
                KEPT.append(bytearray(b"x" * (200 << 20)))
        if setup.journal is not None:
            handle = os.open(setup.journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.write(handle, f"{job.repo_id}@{commit_of(job.repo_id)}\n".encode())
            os.close(handle)
        return scanned(job)

    return work


def commit_of(repo_id: str) -> str:
    """The commit that a made-up repository is at."""
    return sha1(repo_id.encode(), usedforsecurity=False).hexdigest()


def scanned(job: ScanJob, *, outcome: str = "pass", score: float = 0.1, **changes: object) -> Scanned:
    """A finished scan of a made-up repository."""
    report = {"subject": job.repo_id, "padding": "x" * 100}
    raw = json.dumps(report).encode()
    fields: dict[str, object] = {
        "repo_id": job.repo_id,
        "revision": commit_of(job.repo_id),
        "pins": {job.repo_id: commit_of(job.repo_id), "org/base": "b" * 40},
        "ending": "concluded",
        "problem": None,
        "outcome": outcome,
        "score": score,
        "false_positive_rate": None,
        "relation": "finetune",
        "status": "verified",
        "base_repo": "org/base",
        "base_revision": "b" * 40,
        "parameters_compared": 10,
        "parameters_total": 10,
        "bytes_read": 1000,
        "requests": 5,
        "seconds": 0.01,
        "created_at": "2026-11-20T00:00:00Z",
        "digest": sha256(raw).hexdigest(),
        "findings": (Noted(rule_id="HA201", severity="high", title="Rows", fingerprint="f" * 16),)
        if outcome != "pass"
        else (),
        "report": zlib.compress(raw),
    }
    return Scanned(**{**fields, **changes})
