"""Checks shared by the settings."""

import unicodedata
from typing import Any

from backtal.errors import ConfigError


def require(condition: bool, config: Any, name: str, what: str) -> None:
    """Raise a ConfigError that names the field unless the condition holds."""
    if not condition:
        raise ConfigError(f"{type(config).__name__}.{name}: must be {what}, got {getattr(config, name)!r}")


def at_least(config: Any, least: float, *names: str) -> None:
    """Require that the fields, where set, are at least so much."""
    for name in names:
        value = getattr(config, name)
        require(value is None or value >= least, config, name, f"at least {least}")


def at_most(config: Any, most: float, *names: str) -> None:
    """Require that the fields, where set, are at most so much."""
    for name in names:
        value = getattr(config, name)
        require(value is None or value <= most, config, name, f"at most {most}")


def is_name(text: str) -> bool:
    """Whether a text can name a label: 1 to 200 characters, none of them control."""
    return 0 < len(text) <= 200 and not any(unicodedata.category(character) in ("Cc", "Cs") for character in text)


def is_grid(config: Any, *names: str) -> None:
    """Require that the fields, where set, are the first, end and step of at most 1000 thresholds."""
    for name in names:
        grid = getattr(config, name)
        require(grid is None or (grid[2] > 0 and grid[1] > grid[0]), config, name, "first < end with a step > 0")
        require(grid is None or grid[1] - grid[0] <= 1000 * grid[2], config, name, "at most 1000 thresholds")
