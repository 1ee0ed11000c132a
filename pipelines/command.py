"""What all commands of the command line share: exit codes, errors as one sentence, the Hub and reports they open."""

import traceback
from collections.abc import Callable, Mapping
from enum import IntEnum
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pipelines.settings import load_settings

if TYPE_CHECKING:
    from audit.records import AuditReport
    from audit.suppressions import Entry
    from scanner.errors import HubAuditError
    from scanner.hub import Hub


class Exit(IntEnum):
    """What the process says when it ends. 3 and 4 are never reported as clean."""

    NOTHING_FOUND = 0
    FINDING = 1
    USAGE = 2
    COULD_NOT_CONCLUDE = 3
    NOTHING_TO_COMPARE = 4


FAILING: Mapping[str, frozenset[str]] = {
    "review": frozenset({"review", "fail"}),
    "fail": frozenset({"fail"}),
    "never": frozenset(),
}
"""What ``--fail-on`` may be, and the outcomes that then exit with 1."""

Command = TypeVar("Command", bound=Callable[..., Any])


def ends_with_a_sentence(command: Command) -> Command:
    """Turn errors into one clean sentence on stderr and the right exit code; a traceback only with --debug."""

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        from reports.safe_text import clean_line
        from scanner.errors import HubAuditError

        caught: Exception
        try:
            return command(*args, **kwargs)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except KeyboardInterrupt:  # click would exit with 1, which says that something was found
            click.echo("hubaudit: interrupted; nothing was concluded, and the same command can be run again.", err=True)
            raise SystemExit(int(Exit.COULD_NOT_CONCLUDE)) from None
        except HubAuditError as error:
            caught, code, text = error, exit_of(error), str(error)
        except OSError as error:
            caught, code, text = (
                error,
                Exit.COULD_NOT_CONCLUDE,
                f"{error.strerror or error}: {error.filename or ''}".rstrip(": "),
            )
        except Exception as error:  # noqa: BLE001
            caught, code = error, Exit.COULD_NOT_CONCLUDE
            text = (
                f"internal error ({type(error).__name__}: {error}); nothing was concluded. "
                "Run again with --debug and report it."
            )
        context = click.get_current_context(silent=True)
        if context and (context.find_root().params or {}).get("debug"):
            traceback.print_exception(caught)
        click.echo(f"hubaudit: {clean_line(text, limit=2000)}", err=True)
        raise SystemExit(int(code))

    return run  # type: ignore[return-value]


def fail_on_option(help_text: str = "The mildest outcome that exits with 1.") -> Callable[[Command], Command]:
    """Return the option ``--fail-on``."""
    return click.option(
        "--fail-on", type=click.Choice(tuple(FAILING)), default="review", show_default=True, help=help_text
    )


def baseline_option(help_text: str) -> Callable[[Command], Command]:
    """Return the option ``--baseline``."""
    existing = click.Path(exists=True, dir_okay=False, path_type=Path)
    return click.option("--baseline", type=existing, metavar="FILE", help=help_text)


BASELINE_HELP = "Findings that are accepted, each with a reason and an expiry date (docs/reports.md)."

template_dir_option = click.option(
    "--template-dir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Your own Markdown and HTML templates, in place of ours (docs/reports.md).",
)


def exit_of(error: "HubAuditError") -> Exit:
    """Return the exit code that an error stands for."""
    from scanner.errors import BadReference, NothingToCompare

    match error:
        case BadReference():
            return Exit.USAGE
        case NothingToCompare():
            return Exit.NOTHING_TO_COMPARE
        case _:
            return Exit.COULD_NOT_CONCLUDE


def sentence(error: Exception) -> str:
    """Return the text of an error, fit for a terminal."""
    return in_one_line(str(error))


def in_one_line(text: str) -> str:
    """Return text that may hold a stranger's words, fit for a terminal."""
    from reports.safe_text import clean_line

    return clean_line(text, limit=2000)


def open_hub(*, most_requests: int | None = None) -> "Hub":
    """Return the Hub reader that the environment describes; it sends at most so many requests."""
    from scanner.hub import Hub

    settings = load_settings()
    return Hub(
        endpoint=settings.endpoint,
        token=settings.token,
        timeout_seconds=settings.timeout_seconds,
        max_wait_seconds=settings.patience_seconds,
        most_requests=most_requests,
    )


def load_baseline(path: Path | None) -> "tuple[Entry, ...]":
    """Read a baseline file; no file means no entries.

    Raises:
        BadBaseline: it is not one; the sentence names the line.
        OSError: it cannot be read.
    """
    from audit.suppressions import MAX_FILE_BYTES, BadBaseline, parse_baseline

    if path is None:
        return ()
    if path.stat().st_size > MAX_FILE_BYTES:
        raise BadBaseline(f"{path} is larger than {MAX_FILE_BYTES:,} bytes; split the list by model.")
    try:
        return parse_baseline(path.read_text(encoding="utf-8-sig"), str(path))
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise BadBaseline(f"{path}, line {line}: this is not UTF-8; save the file as UTF-8.") from None


def load_report(path: Path) -> "AuditReport":
    """Read a JSON report.

    Raises:
        click.UsageError: the file is not a hubaudit report.
    """
    from reports.json_v1 import ReportFormatError, load

    try:
        return load(path.read_bytes())
    except ReportFormatError as error:
        raise click.UsageError(f"{path}: {error}") from None
