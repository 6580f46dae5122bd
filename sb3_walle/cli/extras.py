"""Packages that the package itself does not need: those of its extra ``extra``."""

from importlib.util import find_spec

from sb3_walle.cli.environments import UsageError


class MissingExtra(UsageError, ImportError):
    """A package of the extra is not installed."""


def require_extra(what: str, *packages: str) -> None:
    """
    :param what: what needs the packages
    :param packages: names of modules
    :raises MissingExtra: if one of them is not installed
    """
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise MissingExtra(f"{what} needs {', '.join(missing)}: pip install 'sb3_walle[extra]'")
