"""Publish a folder of repositories: ``python -m localhub --port 0 --folder DIR``.

Every ``DIR/org/name/`` becomes the repository ``org/name``, served from where its files lie. The one line
``endpoint http://127.0.0.1:PORT`` on standard output says that the server is ready. It runs until SIGINT or SIGTERM.
"""

import argparse
import signal
import threading
from pathlib import Path
from typing import get_args

from localhub.accounts import Role
from localhub.server import LocalHub
from localhub.state import Settings


def main() -> None:
    """Run the server until a signal ends it."""
    options = _parser().parse_args()
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    settings = Settings(
        cdn=options.cdn, bandwidth=options.bandwidth, latency_seconds=options.latency, page_size=options.page_size
    )
    with LocalHub(port=options.port, settings=settings) as hub:
        if options.folder is not None:
            publish(hub, options.folder)
        for token, user, role in options.token:
            hub.register_token(token, user, role)
        print(f"endpoint {hub.endpoint}", flush=True)
        stop.wait()


def publish(hub: LocalHub, folder: Path) -> tuple[str, ...]:
    """Publish every ``org/name`` folder below ``folder`` and return their names, sorted."""
    found = sorted(path for path in folder.glob("*/*") if path.is_dir() and not path.parent.name.startswith("."))
    names = [path.relative_to(folder).as_posix() for path in found]
    for name, path in zip(names, found, strict=True):
        hub.add_repo(name, folder=path)
    return tuple(names)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m localhub", description="A Hub on loopback.")
    parser.add_argument("--port", type=int, default=0, help="where to listen; 0 picks a free port (default)")
    parser.add_argument("--folder", type=_folder, help="publish every org/name folder below this one")
    parser.add_argument(
        "--token",
        type=_token,
        action="append",
        default=[],
        metavar="TOKEN=USER[:ROLE]",
        help="accept a token of a user; ROLE is write (default) or read; may be repeated",
    )
    parser.add_argument("--bandwidth", type=float, help="bytes per second, for all connections together")
    parser.add_argument("--latency", type=float, default=0, help="seconds before every reply")
    parser.add_argument("--page-size", type=int, default=1000, help="most entries in one page of a listing")
    parser.add_argument("--cdn", action="store_true", help="answer LFS files with a redirect to a second port")
    return parser


def _folder(text: str) -> Path:
    path = Path(text)
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is not a folder")
    return path


def _token(text: str) -> tuple[str, str, str]:
    token, _, rest = text.partition("=")
    user, _, role = rest.partition(":")
    role = role or "write"
    if not token or not user or role not in get_args(Role):
        raise argparse.ArgumentTypeError(f"{text!r} is not TOKEN=USER[:ROLE]")
    return token, user, role


if __name__ == "__main__":
    main()
