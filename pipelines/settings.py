"""What the environment says, read once. No other module reads it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

DEFAULT_ENDPOINT = "https://huggingface.co"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Where the Hub is and who we are there.

    ``token`` is None when the environment sets none; the client then looks for a stored login by itself.
    ``timeout_seconds`` bounds each request, ``patience_seconds`` the waiting for one request over all its retries.
    ``state_folder`` holds what has to be remembered between runs; it may not exist yet. ``webhook_secret`` is what
    the Hub sends with its events. ``key_password`` opens the private key of ``hubaudit attest``.
    """

    endpoint: str = DEFAULT_ENDPOINT
    token: str | None = None
    timeout_seconds: float = 30.0
    patience_seconds: float = 120.0
    state_folder: Path = Path(".hubaudit")
    cache_folder: Path = Path(".hubaudit") / "cache"
    webhook_secret: str | None = field(default=None, repr=False)
    key_password: str | None = field(default=None, repr=False)


def _number(environment: Mapping[str, str], name: str, default: float) -> float:
    """Return a positive number from the environment, or the default when it is absent or not one."""
    try:
        value = float(environment.get(name, ""))
    except ValueError:
        return default
    return value if value > 0 else default


def load_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Read ``HF_ENDPOINT``, ``HF_TOKEN``, and our own variables.

    ``HUBAUDIT_TIMEOUT`` and ``HUBAUDIT_PATIENCE`` are in seconds. State goes to ``HUBAUDIT_STATE``, else below
    ``XDG_STATE_HOME`` or ``~/.local/state``; what can be made again to ``HUBAUDIT_CACHE``, else below
    ``XDG_CACHE_HOME`` or ``~/.cache``. ``HUBAUDIT_WEBHOOK_SECRET`` is for ``hubaudit serve``,
    ``HUBAUDIT_KEY_PASSWORD`` for ``hubaudit attest``.
    """
    env = os.environ if environment is None else environment
    return Settings(
        endpoint=(env.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/"),
        token=env.get("HF_TOKEN") or None,
        timeout_seconds=_number(env, "HUBAUDIT_TIMEOUT", 30.0),
        patience_seconds=_number(env, "HUBAUDIT_PATIENCE", 120.0),
        state_folder=_state_folder(env),
        cache_folder=_cache_folder(env),
        webhook_secret=env.get("HUBAUDIT_WEBHOOK_SECRET") or None,
        key_password=env.get("HUBAUDIT_KEY_PASSWORD") or None,
    )


def _state_folder(environment: Mapping[str, str]) -> Path:
    """Return the folder for state, as the XDG base directory specification has it."""
    if environment.get("HUBAUDIT_STATE"):
        return Path(environment["HUBAUDIT_STATE"])
    if environment.get("XDG_STATE_HOME"):
        return Path(environment["XDG_STATE_HOME"]) / "hubaudit"
    home = environment.get("HOME")
    return Path(home) / ".local" / "state" / "hubaudit" if home else Settings().state_folder


def _cache_folder(environment: Mapping[str, str]) -> Path:
    """Return the folder for what can be made again, as the XDG base directory specification has it."""
    if environment.get("HUBAUDIT_CACHE"):
        return Path(environment["HUBAUDIT_CACHE"])
    if environment.get("XDG_CACHE_HOME"):
        return Path(environment["XDG_CACHE_HOME"]) / "hubaudit"
    home = environment.get("HOME")
    return Path(home) / ".cache" / "hubaudit" if home else Settings().cache_folder


def tool_version() -> str:
    """Return the installed version of the distribution."""
    try:
        return version("hubaudit")
    except PackageNotFoundError:
        return "0+unknown"
