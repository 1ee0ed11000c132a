"""What a person or a card may call a model: an id, a Hub URL or a folder.

Pure text work apart from one look at the disk (is there such a folder?). Nothing here asks the Hub, so a parsed id
need not exist; ``scanner.hub.Hub.resolve`` pins it.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from scanner.errors import BadReference

HUB_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")
MAX_TEXT_CHARS = 1024
MAX_NAME_CHARS = 96
"""Characters of a namespace or of a name; the limit of the Hub."""
MAX_REVISION_CHARS = 255

_SEGMENT = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?", re.ASCII)
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/+-]*", re.ASCII)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_CREDENTIALS = re.compile(r"//[^/\s]*@")
_OTHER_KINDS = frozenset({"datasets", "spaces", "buckets", "kernels", "papers", "collections", "docs", "blog", "api"})
_PAGES = frozenset({"tree", "blob", "resolve", "raw", "commit", "commits", "blame"})
"""The pages of a repository whose URL goes on with a revision."""
_NULL_WORDS = frozenset({"none", "null", "nan", "undefined", "unknown"})
"""What exporters write into a card when there is no base."""
_SHOWN_CHARS = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class RepoSpec:
    """What was asked for, not yet pinned. Exactly one of ``repo_id`` and ``path`` is set."""

    text: str
    repo_id: str | None = None
    revision: str | None = None
    path: str | None = None


def parse_spec(text: str, *, endpoint: str | None = None) -> RepoSpec:
    """Read ``org/name``, ``name``, either with ``@revision``, a Hub URL, or a local folder.

    An existing folder wins over an id of the same spelling; ``@revision`` and a URL always mean the Hub. Text that
    begins with ``.``, ``/`` or ``~`` is always a folder.

    Args:
        text: what the user typed.
        endpoint: the configured Hub; its URLs are read like those of huggingface.co.

    Raises:
        BadReference: none of these, or the folder does not exist.
    """
    stripped = text.strip()
    if not stripped or len(stripped) > MAX_TEXT_CHARS or not stripped.isprintable():
        raise _bad(text, "is not a model")
    if _SCHEME.match(stripped):
        return _from_url(text, stripped, endpoint)
    if stripped.startswith((".", "/", "~")):
        return _from_folder(text, stripped)
    if _is_folder(stripped):
        return RepoSpec(text=text, path=stripped)
    if stripped.split("/", 1)[0] in HUB_HOSTS:
        return _from_url(text, f"https://{stripped}", endpoint)
    repo_id, at, revision = stripped.partition("@")
    if not _is_repo_id(repo_id):
        raise _bad(text, "is not a model")
    if at and not _is_revision(revision):
        raise _bad(text, "names a revision that cannot exist")
    return RepoSpec(text=text, repo_id=repo_id, revision=revision or None)


def as_repo_id(value: object, *, endpoint: str | None = None) -> str | None:
    """Return the repository that a card's ``base_model`` value names, or None when it names none.

    Ids and Hub URLs count; folders, markup, lists, null words and anything overlong do not. A revision in a URL is
    dropped: a declaration names a family member, and revisions are tried later.
    """
    if not isinstance(value, str) or len(value) > MAX_TEXT_CHARS:
        return None
    text = value.strip()
    if text.lower() in _NULL_WORDS:
        return None
    if _SCHEME.match(text) or text.split("/", 1)[0] in HUB_HOSTS:
        try:
            return _from_url(text, text if _SCHEME.match(text) else f"https://{text}", endpoint).repo_id
        except BadReference:
            return None
    return text if _is_repo_id(text) else None


def _is_repo_id(text: str) -> bool:
    """Whether the Hub could have a repository of that name (the client's own rule, ASCII only)."""
    segments = text.split("/")
    return (
        len(segments) <= 2
        and all(len(s) <= MAX_NAME_CHARS and _SEGMENT.fullmatch(s) for s in segments)
        and "--" not in text
        and ".." not in text
        and not text.endswith(".git")
    )


def _is_revision(text: str) -> bool:
    return len(text) <= MAX_REVISION_CHARS and ".." not in text and _REVISION.fullmatch(text) is not None


def _is_folder(text: str) -> bool:
    try:
        return Path(text).is_dir()
    except (OSError, ValueError):
        return False


def _from_folder(text: str, stripped: str) -> RepoSpec:
    try:
        path = Path(stripped).expanduser()
        if path.is_dir():
            return RepoSpec(text=text, path=str(path))
        what = "is a file and no folder" if path.exists() else "is not an existing folder"
    except (OSError, ValueError, RuntimeError):  # RuntimeError: `~name` of an unknown user
        what = "is not an existing folder"
    raise _bad(text, what)


def _from_url(text: str, url: str, endpoint: str | None) -> RepoSpec:
    """Read a Hub URL; whatever follows the revision, the query and the fragment are ignored."""
    try:
        parts = urlsplit(url)
        known = (*HUB_HOSTS, urlsplit(endpoint).netloc.lower()) if endpoint else HUB_HOSTS
    except ValueError as error:
        raise _bad(text, "is not a URL") from error
    # A user name or token before the host changes `netloc`, so such URLs fall out here as well.
    if parts.scheme not in {"https", "http"} or parts.netloc.lower() not in known:
        raise _bad(text, "is not a URL of the Hub")
    segments = [unquote(segment) for segment in parts.path.split("/") if segment]
    if not segments or segments[0] in _OTHER_KINDS:
        raise _bad(text, "is a URL of the Hub but not of a model")
    size = 1 if len(segments) == 1 or segments[1] in _PAGES else 2
    repo_id, rest = "/".join(segments[:size]), segments[size:]
    revision = _revision_of(rest)
    if not _is_repo_id(repo_id) or (revision is not None and not _is_revision(revision)):
        raise _bad(text, "is a URL of the Hub but not of a model")
    return RepoSpec(text=text, repo_id=repo_id, revision=revision)


def _revision_of(rest: list[str]) -> str | None:
    """The revision in the URL path after the repository, or None; ``refs/pr/N`` spans three segments."""
    if len(rest) < 2 or rest[0] not in _PAGES:
        return None
    return "/".join(rest[1:4]) if rest[1] == "refs" else rest[1]


def _bad(text: str, what: str) -> BadReference:
    shown = ascii(_CREDENTIALS.sub("//...@", text)[:_SHOWN_CHARS])
    return BadReference(f"{shown} {what}; give org/name, org/name@revision, a Hub URL or a local folder.")
