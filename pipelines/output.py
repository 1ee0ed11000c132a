"""Where reports go: pairing formats with targets, and writing each document whole or not at all."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from audit.records import AuditReport

STDOUT = "-"
FORMATS = ("table", "json", "markdown", "html", "sarif", "summary", "cyclonedx")
"""The names in ``reports.formats.RENDERERS``, without importing it: ``--help`` stays light."""
SUFFIXES = {".json": "json", ".md": "markdown", ".html": "html", ".htm": "html", ".sarif": "sarif", ".txt": "table"}
CYCLONEDX_SUFFIXES = (".cdx.json", "bom.json")
"""The names that the CycloneDX project recommends; every other ``.json`` is our own report."""

Target = tuple[str, str]
"""A format and where it goes: a path, or "-" for stdout."""


_Command = TypeVar("_Command", bound=Callable[..., Any])


def report_options(command: _Command) -> _Command:
    """Give a command ``--format`` (as ``formats``) and ``--output`` (as ``outputs``), both repeatable."""
    formats = click.option(
        "--format", "formats", multiple=True, type=click.Choice(FORMATS), help="Repeat, in pairs with --output."
    )
    outputs = click.option(
        "--output", "outputs", multiple=True, metavar="PATH", help="Where the format before it goes; - is stdout."
    )
    return formats(outputs(command))


def pair_outputs(formats: Sequence[str], outputs: Sequence[str]) -> list[Target]:
    """Pair formats with outputs in the order given.

    With no output, the format goes to stdout, and with no format either, that is the table. With outputs alone, each
    file's suffix says the format. One format more than outputs sends the last one to stdout.

    Raises:
        click.UsageError: the numbers do not match, or a suffix is unknown, or a target is named twice.
    """
    if not formats and not outputs:
        return [("table", STDOUT)]
    if not formats:
        formats = [_format_of(path) for path in outputs]
    if len(formats) == len(outputs) + 1:
        outputs = [*outputs, STDOUT]
    if len(formats) != len(outputs):
        raise click.UsageError(
            f"{len(formats)} --format and {len(outputs)} --output: give them in pairs, `--format F --output PATH`."
        )
    twice = {target for target in outputs if list(outputs).count(target) > 1}
    if twice:
        where = "stdout" if STDOUT in twice else min(twice)
        raise click.UsageError(f"two formats would go to {where}; give each an --output of its own.")
    return list(zip(formats, outputs, strict=True))


def _format_of(path: str) -> str:
    """Return the format that a file's suffix stands for."""
    if Path(path).name.lower().endswith(CYCLONEDX_SUFFIXES):
        return "cyclonedx"
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise click.UsageError(f"--output {path}: cannot tell the format from the name; add --format.")
    return SUFFIXES[suffix]


def check_targets(targets: Sequence[Target]) -> None:
    """Refuse before the work, not after it, when a document could not be written.

    Raises:
        click.UsageError: the folder does not exist, or the target is a folder.
    """
    for _, target in targets:
        if target != STDOUT and not Path(target).parent.is_dir():
            raise click.UsageError(f"--output {target}: the folder {Path(target).parent} does not exist.")
        if target != STDOUT and Path(target).is_dir():
            raise click.UsageError(f"--output {target}: this is a folder; name a file in it.")


def write_reports(report: "AuditReport", targets: Sequence[Target]) -> None:
    """Render the report in each format and write it; JSON first and stdout last.

    A format that breaks does not keep the others from being written: a scan may have cost hours.

    Raises:
        ExceptionGroup: of what broke, after everything else was written.
    """
    from reports.formats import render

    broken: list[Exception] = []
    for name, target in sorted(targets, key=lambda pair: (pair[1] == STDOUT, pair[0] != "json")):
        try:
            write_document(render(report, name, colour=target == STDOUT and sys.stdout.isatty()), target)
        except Exception as error:  # noqa: BLE001
            broken.append(error)
    if len(broken) == 1:
        raise broken[0]
    if broken:
        raise ExceptionGroup("several reports could not be written", broken)


def write_document(content: str | bytes, target: str) -> None:
    """Write to a file through a temporary neighbour, so that nobody ever sees half of it; "-" is stdout.

    Raises:
        OSError: the folder does not exist or is not writable, or the disk is full; no file is left behind.
    """
    raw = content.encode("utf-8") if isinstance(content, str) else content
    if target == STDOUT:
        sys.stdout.buffer.write(raw)
        if not raw.endswith(b"\n"):
            sys.stdout.buffer.write(b"\n")
        sys.stdout.flush()
        return
    path = Path(target)
    handle, temporary = tempfile.mkstemp(dir=path.parent or Path(), prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(raw)
        mask = os.umask(0)
        os.umask(mask)
        Path(temporary).chmod(0o666 & ~mask)
        Path(temporary).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise
