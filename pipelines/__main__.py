"""The front door: `hubaudit`, and `python -m pipelines`."""

import sys
from contextlib import suppress

from pipelines import _guard, streams

EXIT_COULD_NOT_CONCLUDE = 3


def main() -> None:
    """Check that the packages are ours, then hand over to the command line."""
    streams.stand_in_for_closed_streams()
    problem = _guard.check()
    if problem:
        sys.stderr.write(f"hubaudit: {problem}\n")
        raise SystemExit(EXIT_COULD_NOT_CONCLUDE)
    try:
        from pipelines.cli import cli

        cli(prog_name="hubaudit")
    except KeyboardInterrupt:  # before any command began
        sys.stderr.write("hubaudit: interrupted before it began.\n")
        raise SystemExit(EXIT_COULD_NOT_CONCLUDE) from None
    except OSError as error:  # of --help, --version and wrong usage; Python would exit with 1, which says "found"
        with suppress(OSError):
            sys.stderr.write(f"hubaudit: {error.strerror or error}\n")
        raise SystemExit(EXIT_COULD_NOT_CONCLUDE) from None


if __name__ == "__main__":
    main()
