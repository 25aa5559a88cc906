"""What every command shares."""

from pathlib import Path
from typing import Any

import click

from backtal.errors import BackTALError


class Command(click.Command):
    """A command whose errors are one line on stderr: exit code 2 for bad input, 1 for a failure."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run it; a known error becomes its message and an exit code."""
        try:
            return super().invoke(ctx)
        except BackTALError as failure:
            click.echo(f"backtal {self.name}: {failure}", err=True)
            ctx.exit(2)
        except ImportError as failure:
            if "pip install" not in str(failure):
                raise
            click.echo(f"backtal {self.name}: {failure}", err=True)
            ctx.exit(1)
        except OSError as failure:
            click.echo(f"backtal {self.name}: {failure}", err=True)
            ctx.exit(1)


def read_labels(path: Path | None) -> tuple[str, ...] | None:
    """The class names of a file with one per line, or None for no file."""
    from backtal.files import read_lines

    return tuple(read_lines(path)) if path else None
