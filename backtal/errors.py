"""The one family of exceptions for bad input; the command line turns them into exit code 2."""


class BackTALError(ValueError):
    """Bad input. The message names the thing, says what was found and what to do."""


class ConfigError(BackTALError):
    """A setting is unknown, of the wrong type or out of range."""


class DataError(BackTALError):
    """A dataset, feature file, click file or prediction file is missing or inconsistent."""


class CheckpointError(BackTALError):
    """A checkpoint is missing, damaged or does not fit the network it claims to be."""


def name_some(names, limit: int = 5) -> str:
    """Join the first names for a message: ``"a, b, c and 7 more"``."""
    names = list(names)
    shown = ", ".join(str(name) for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def install(extra: str) -> str:
    """How to get the packages of an extra, for a message: in a checkout, and from the index once it is published there.

    Example:
        >>> install("video")
        "pip install -e '.[video]' in a checkout of backtal; pip install 'backtal[video]' once it is published"
    """
    return f"pip install -e '.[{extra}]' in a checkout of backtal; pip install 'backtal[{extra}]' once it is published"
