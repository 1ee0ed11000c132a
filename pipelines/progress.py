"""Progress for people: on stderr, and only when it is a terminal."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Progress(Protocol):
    """Hears what a long operation is doing."""

    def stage(self, text: str) -> None:
        """A new stage begins."""

    def advance(self, done: int, total: int) -> None:
        """So many of so many bytes of the current stage are done."""


class Quiet:
    """Says nothing."""

    def stage(self, text: str) -> None:
        """Say nothing."""

    def advance(self, done: int, total: int) -> None:
        """Say nothing."""


@contextmanager
def terminal_progress(*, quiet: bool = False) -> Iterator[Progress]:
    """Show stages and a byte bar with speed and time left on stderr when it is a terminal; else stay quiet."""
    if quiet or not sys.stderr.isatty():
        yield Quiet()
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    bar = Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )

    class Shown:
        def __init__(self) -> None:
            self.task = bar.add_task("starting", total=None)

        def stage(self, text: str) -> None:
            bar.update(self.task, description=text, completed=0, total=None)

        def advance(self, done: int, total: int) -> None:
            bar.update(self.task, completed=done, total=total)

    with bar:
        yield Shown()
