"""Progress of purification for people: a bar with the share done and the time left, whatever is being counted."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pipelines.progress import Progress, Quiet


@contextmanager
def step_progress(*, quiet: bool = False) -> Iterator[Progress]:
    """Show stages, a bar, percent and time left on stderr when it is a terminal; else stay quiet."""
    if quiet or not sys.stderr.isatty():
        yield Quiet()
        return
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    bar = Bar(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )

    class Shown:
        def __init__(self) -> None:
            self.task = bar.add_task("starting", total=None)

        def stage(self, text: str) -> None:
            bar.reset(self.task, description=text, total=None)

        def advance(self, done: int, total: int) -> None:
            bar.update(self.task, completed=done, total=total or None)

    with bar:
        yield Shown()


def silence_libraries() -> None:
    """Keep transformers' own bars and warnings off the terminal: what matters is told by us."""
    import transformers

    logging: Any = transformers.utils.logging
    logging.disable_progress_bar()
    logging.set_verbosity_error()
