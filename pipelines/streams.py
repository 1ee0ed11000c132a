"""Standard streams that the caller closed (``hubaudit … >&-``): nothing else may take their place.

Python leaves ``sys.stdout`` None then, and gives the number of the closed stream to the next file that is opened: a
report, a database or a connection, into which whatever a library prints would go.
"""

import errno
import io
import os
import sys
from contextlib import suppress
from typing import NoReturn

STREAMS = 3
CLOSED = "stdout is closed, so there is nowhere to write to: leave it open, or name a file with --output."


class ClosedStdout(io.RawIOBase):
    """A stdout that says that it is closed to whoever writes to it; nothing waits in it for the end of the process."""

    def writable(self) -> bool:
        """Be asked to write, so that the sentence is told."""
        return True

    def write(self, _raw: object, /) -> NoReturn:
        """Refuse.

        Raises:
            OSError: always.
        """
        raise OSError(errno.EBADF, CLOSED)


def stand_in_for_closed_streams() -> None:
    """Keep the numbers 0, 1 and 2 from other files, and give stdout and stderr objects where Python has none.

    What is written to a stderr that is closed is lost, as its caller asked; a stdout that is closed refuses.
    """
    _keep_numbers()
    if sys.stdout is None:
        # What was written at once and refused is not kept and tried again when the process ends.
        sys.stdout = io.TextIOWrapper(ClosedStdout(), encoding="utf-8", write_through=True)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8", buffering=1)  # noqa: SIM115, PTH123


def refuse_closed_stdout() -> None:
    """Say before the work that what it finds could not be written.

    Raises:
        OSError: stdout was closed when the process began.
    """
    if isinstance(getattr(sys.stdout, "buffer", None), ClosedStdout):
        raise OSError(errno.EBADF, CLOSED)


def _keep_numbers() -> None:
    """Open the null device under each of the three numbers that is free, for the processes that we start too."""
    for number in range(STREAMS):
        with suppress(OSError):
            os.fstat(number)
            continue
        taken = os.open(os.devnull, os.O_RDWR)
        if taken != number:
            os.dup2(taken, number)
            os.close(taken)
        os.set_inheritable(number, True)
