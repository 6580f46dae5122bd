from importlib.util import find_spec

from sb3_walle.cli.arguments import UsageError


class MissingExtra(UsageError, ImportError):
    """A package is not installed that only an extra of this package contains."""


def require_extra(what: str, *packages: str, extra: str = "extra") -> None:
    """
    :param what: what needs the packages, for the message
    :param extra: name of the extra that contains them
    :raises MissingExtra: if one of them is not installed
    """
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise MissingExtra(f"{what} needs {', '.join(missing)}: pip install 'sb3_walle[{extra}]'")
