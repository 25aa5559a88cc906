"""What every command shares."""

import contextlib
import ctypes
import logging
import sys
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

from backtal.errors import BackTALError, DataError


class Command(click.Command):
    """A command whose errors are one line on stderr: exit code 2 for bad input, 1 for a failure."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run it; a known error becomes its message and an exit code."""
        try:
            return super().invoke(ctx)
        except BackTALError as failure:
            click.echo(f"{_called(ctx)}: {failure}", err=True)
            ctx.exit(2)
        except ImportError as failure:
            if "pip install" not in str(failure):
                raise
            click.echo(f"{_called(ctx)}: {failure}", err=True)
            ctx.exit(1)
        except OSError as failure:
            click.echo(f"{_called(ctx)}: {failure}", err=True)
            ctx.exit(1)


def _called(ctx: click.Context) -> str:
    """The command as it was typed, its groups included."""
    names = []
    while ctx.parent is not None:
        names.append(str(ctx.info_name))
        ctx = ctx.parent
    return " ".join(["backtal", *reversed(names)])


class _OnStderr(logging.Handler):
    """Shows what the package says of its results, each thing once, without breaking a progress bar."""

    def __init__(self) -> None:
        super().__init__()
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        if text not in self._said:
            if len(self._said) > 10_000:  # of a stream that goes on for years
                self._said.clear()
            self._said.add(text)
            tqdm.write(text, file=sys.stderr)


def show_notes() -> None:
    """Have stderr show what is left out, guessed or converted: the warnings of the logger ``backtal``."""
    log = logging.getLogger("backtal")
    log.handlers[:] = [*(one for one in log.handlers if not isinstance(one, _OnStderr)), _OnStderr()]


def read_labels(path: Path | None) -> tuple[str, ...] | None:
    """The class names of a file with one per line, or None for no file."""
    from backtal.files import read_lines

    return tuple(read_lines(path)) if path else None


def thresholds(protocol_name: str | None, tiou: str | None, default: str) -> tuple[float, ...]:
    """The tIoU thresholds that the options --protocol and --tiou ask for.

    Raises:
        DataError: if both are given.
    """
    from backtal.settings.presets import protocol, tiou_range

    if protocol_name and tiou:
        raise DataError("--protocol and --tiou exclude each other")
    return protocol(protocol_name) if protocol_name else tiou_range(tiou or default)


def keep_freed_memory() -> None:
    """Have glibc keep what is freed for what comes next.

    By default it gives large blocks back to the kernel, which clears them again for the next layer of a network: that
    took as long as an image network itself (`backtal extract`, 35 s and then 19 s for one video).
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):  # not Linux, or not glibc
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
        mallopt(-1, (1 << 31) - 1)  # M_TRIM_THRESHOLD
