"""The demo leaves nothing running when it is ended half-way."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

SUPPORT = Path(__file__).resolve().parents[1] / "support"
HALF_WAY = """
import sys, time
from pathlib import Path
from demo import end_on_signals, local_hub

end_on_signals()
with local_hub(Path(sys.argv[1])) as endpoint:
    print(endpoint, flush=True)
    time.sleep(600)
"""


def listens(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=10).close()
    except ConnectionRefusedError:
        return False
    return True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_local_hub_ends_with_the_demo(tmp_path: Path, number: signal.Signals) -> None:
    # With SIGINT ignored, as a shell leaves it to what it starts in the background.
    line = 'trap "" INT; exec "$0" -c "$1" "$2"'
    demo = subprocess.Popen(
        ["/bin/sh", "-c", line, sys.executable, HALF_WAY, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SUPPORT)},
    )
    assert demo.stdout is not None
    endpoint = urlsplit(demo.stdout.readline().strip())
    address = (str(endpoint.hostname), int(endpoint.port or 0))
    assert listens(address)
    demo.send_signal(number)
    _, told = demo.communicate(timeout=120)
    assert (demo.returncode, told) == (128 + number, "")
    assert not listens(address)
