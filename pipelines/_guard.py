"""Refuse to run with namesakes: `scanner`, `audit` and `reports` are common names for a package.

The folders are fixed by the project (docs/decisions/0001-flat-packages.md), so another distribution, or a folder
beside the user's script, may shadow one of them. Each of our packages opens its docstring with the distribution's
name; a package without that mark is somebody else's, and the scan would not be ours.
"""

from importlib import import_module

PACKAGES = ("scanner", "audit", "reports")
MARK = "hubaudit:"


def check() -> str | None:
    """Return a sentence that names the first package which is not ours, or None when all are."""
    for name in PACKAGES:
        try:
            package = import_module(name)
        except ImportError as error:
            return f"The package '{name}' of hubaudit cannot be imported ({error}); reinstall hubaudit."
        if not (package.__doc__ or "").startswith(MARK):
            where = getattr(package, "__file__", None) or next(iter(getattr(package, "__path__", ["?"])))
            return (
                f"The package '{name}' at {where} is not hubaudit's; "
                "install hubaudit in an environment of its own, or run it from another folder."
            )
    return None
