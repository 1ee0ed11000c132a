"""Runs ``hubaudit scan`` as a process of its own, for callers that must outlive it.

The arguments are a list and go to no shell; a model's name cannot be taken for an option. What the caller's
surroundings tell it (a runner's tokens, a server's secret) is kept from the scan.
"""

import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipelines.command import Exit
from reports.json_v1 import ReportFormatError, load

PRIVATE_PREFIXES = ("GITHUB_", "INPUT_", "ACTIONS_", "RUNNER_", "HUBAUDIT_WEBHOOK_", "HUBAUDIT_KEY_")
LOG_CHARS = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanRequest:
    """One scan: the model as a user would type it, and the options that are not the defaults."""

    model: str
    output: Path
    base: str | None = None
    fail_on: str = "review"
    baseline: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanDone:
    """How a scan ended. ``log`` is the end of what it printed; ``timed_out`` says that it was stopped."""

    code: Exit
    log: str
    timed_out: bool = False


def run_scan(
    request: ScanRequest,
    environment: Mapping[str, str],
    *,
    timeout_seconds: float | None = None,
    started: Callable[[subprocess.Popen[str]], None] | None = None,
) -> ScanDone:
    """Scan, and leave the JSON report in ``request.output`` when there is one.

    Args:
        request: what to scan.
        environment: the variables of the caller; those of ``PRIVATE_PREFIXES`` are not passed on.
        timeout_seconds: after so long the process is killed; never when None.
        started: is given the process, for a caller that may have to stop it.
    """
    request.output.unlink(missing_ok=True)
    command = [sys.executable, "-I", "-m", "pipelines", "scan", "--format=json", f"--output={request.output}"]
    command += [f"--fail-on={request.fail_on}"]
    command += [f"--base={request.base}"] if request.base else []
    command += [f"--baseline={request.baseline}"] if request.baseline else []
    kept = {name: value for name, value in environment.items() if not name.startswith(PRIVATE_PREFIXES)}
    with subprocess.Popen(  # noqa: S603
        [*command, "--", request.model],
        env=kept,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        if started is not None:
            started(process)
        try:
            log, _ = process.communicate(timeout=timeout_seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            log, _ = process.communicate()
            return ScanDone(code=Exit.COULD_NOT_CONCLUDE, log=log[-LOG_CHARS:], timed_out=True)
    code = Exit(process.returncode) if process.returncode in set(Exit) else Exit.COULD_NOT_CONCLUDE
    if code in {Exit.NOTHING_FOUND, Exit.FINDING} and not _is_report(request.output):
        code = Exit.COULD_NOT_CONCLUDE
    return ScanDone(code=code, log=log[-LOG_CHARS:])


def _is_report(path: Path) -> bool:
    try:
        load(path.read_bytes())
    except (OSError, ReportFormatError):
        return False
    return True
