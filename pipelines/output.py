"""Where reports go: pairing formats with targets, and writing each document whole or not at all."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pipelines.streams import refuse_closed_stdout
from pipelines.whole_file import whole_file

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
    file's suffix says the format. One format more than outputs sends one to stdout: the last, unless the suffixes of
    the outputs tell that it is another (``--format json --format html --output a.html``).

    Raises:
        click.UsageError: the numbers do not match, or a suffix is unknown, or a target is named twice.
    """
    if not formats and not outputs:
        return [("table", STDOUT)]
    if not formats:
        formats = [_format_of(path) for path in outputs]
    if len(formats) == len(outputs) + 1:
        outputs = _with_stdout(formats, outputs)
    if len(formats) != len(outputs):
        raise click.UsageError(
            f"{len(formats)} --format and {len(outputs)} --output: give them in pairs, `--format F --output PATH`."
        )
    places = [target if target == STDOUT else str(Path(target).resolve()) for target in outputs]
    twice = {place for place in places if places.count(place) > 1}
    if twice:
        where = "stdout" if STDOUT in twice else min(twice)
        raise click.UsageError(f"two formats would go to {where}; give each an --output of its own.")
    return list(zip(formats, outputs, strict=True))


def _with_stdout(formats: Sequence[str], outputs: Sequence[str]) -> list[str]:
    """Put stdout among the outputs, where the fewest of the others would get a format that their suffix belies."""
    tried = [[*outputs[:place], STDOUT, *outputs[place:]] for place in range(len(outputs), -1, -1)]
    return min(tried, key=lambda targets: sum(map(_belies, formats, targets)))


def _belies(format_: str, target: str) -> bool:
    """Whether the name of a file says another format than it gets."""
    try:
        return target != STDOUT and _format_of(target) != format_
    except click.UsageError:  # a name that says nothing
        return False


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
        click.UsageError: the folder does not exist, the target is a folder, or there is no name.
        OSError: it would go to stdout, which is closed.
    """
    for _, target in targets:
        if target == STDOUT:
            refuse_closed_stdout()
        if not target:
            raise click.UsageError("--output is empty: name a file, or - for stdout.")
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
    with whole_file(Path(target)) as temporary:
        temporary.write_bytes(raw)
