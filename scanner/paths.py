"""Which file names of a repository may be used in a URL or below a folder."""

MAX_PATH_CHARS = 1024
MAX_PATH_BYTES = 4096


def is_plain_path(path: str) -> bool:
    """Whether a name is relative, stays where it is put, and shows on a terminal as it is.

    Names come from strangers. Refused are: empty and overlong names, absolute ones, empty, ``.`` and ``..`` segments,
    backslashes and drive letters (another system reads them as separators), and every character that does not print
    (controls, escapes, line ends, direction marks, lone surrogates).
    """
    if not path or len(path) > MAX_PATH_CHARS or not path.isprintable() or "\\" in path:
        return False
    if path[1:2] == ":" or len(path.encode()) > MAX_PATH_BYTES:
        return False
    return all(segment not in {"", ".", ".."} for segment in path.split("/"))


def shown(path: str, limit: int = 100) -> str:
    """The name for an error message: ASCII, quoted, control characters escaped, bounded to ``limit`` characters."""
    return ascii(path if len(path) <= limit else path[:limit] + "...")
