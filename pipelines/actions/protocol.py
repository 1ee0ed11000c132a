"""Talks to a GitHub runner: outputs, summary, annotations, and a log in which no text of strangers is a command.

A runner reads commands from standard output and error alike: lines that begin with ``::``, and ``##[`` anywhere.
Whatever comes from a repository therefore goes through ``Runner.say``, between a ``stop-commands`` with a random
token and its end, and is defused besides.
"""

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TextIO

from reports.safe_text import clean_line

SUMMARY_LIMIT_BYTES = 1_000_000
"""Of one step, below the 1 MiB at which GitHub drops the whole summary."""
ANNOTATIONS_SHOWN = 10
"""Of each level and step; GitHub shows no more."""
LINE_CHARS = 2000


class Runner:
    """One step on a runner. Outside GitHub, where the files are not named, outputs and summary go nowhere."""

    def __init__(self, environment: Mapping[str, str], stream: TextIO) -> None:
        """Prepare; ``environment`` names the files of GITHUB_OUTPUT and GITHUB_STEP_SUMMARY."""
        self._output = environment.get("GITHUB_OUTPUT")
        self._summary = environment.get("GITHUB_STEP_SUMMARY")
        self._stream = stream
        self._annotated: dict[str, int] = {}
        self._summarised = 0

    def say(self, text: str) -> None:
        """Write lines to the log. None of them can be a command, whoever wrote them."""
        token = secrets.token_hex(16)
        lines = [harmless(line) for line in text.splitlines()]
        if lines:
            self._write("\n".join((f"::stop-commands::{token}", *lines, f"::{token}::")))

    def annotate(self, level: Literal["notice", "warning", "error"], title: str, message: str) -> None:
        """Show a message at the top of the run; surplus ones only in the log."""
        self._annotated[level] = self._annotated.get(level, 0) + 1
        if self._annotated[level] > ANNOTATIONS_SHOWN:
            self.say(f"{title}: {message}")
            return
        title = _property(clean_line(title, limit=200))
        self._write(f"::{level} title={title}::{_data(clean_line(message, limit=LINE_CHARS))}")

    def output(self, name: str, value: str) -> None:
        """Set an output of the step.

        Raises:
            ValueError: the value has a line break, with which it could set other outputs.
        """
        if set(value) & {"\n", "\r", "\0"}:
            raise ValueError(f"output {name} spans lines")
        if self._output:
            with Path(self._output).open("a", encoding="utf-8") as file:
                file.write(f"{name}={value}\n")

    def summarise(self, markdown: str) -> bool:
        """Append to the summary of the job; False when there is no room left for it."""
        raw = f"{markdown.rstrip()}\n\n".encode()
        if not self._summary or self._summarised + len(raw) > SUMMARY_LIMIT_BYTES:
            return False
        with Path(self._summary).open("ab") as file:
            file.write(raw)
        self._summarised += len(raw)
        return True

    def _write(self, line: str) -> None:
        self._stream.write(f"{line}\n")
        self._stream.flush()


def harmless(line: str) -> str:
    """Return one line in which a runner sees no command, and a terminal nothing to obey."""
    return clean_line(line, limit=LINE_CHARS).replace("::", ": :").replace("##[", "## [")


def _data(text: str) -> str:
    """Escape as the runner's own toolkit does."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
