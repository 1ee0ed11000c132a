"""Files that appear whole or not at all."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary neighbour that becomes the file when the block ends well, and vanishes when it does not.

    A device, a pipe or a link (``/dev/null``, ``/dev/stdout``) is written to as it is: replacing it would break it.

    Raises:
        OSError: the folder does not exist or is not writable, the disk is full, or the path is a folder. It names
            ``path``, never the temporary file, of which nobody has heard.
    """
    ordinary = not path.is_symlink() and (path.is_file() or path.is_dir() or not path.exists())
    try:
        with _neighbour(path) if ordinary else nullcontext(path) as temporary:
            yield temporary
    except OSError as error:
        if error.errno is None:  # a library's own, which has nothing but its text
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


@contextmanager
def _neighbour(path: Path) -> Iterator[Path]:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
