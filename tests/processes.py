"""Processes with signals, pipes and exit codes of their own that begin at once.

Importing everything takes seconds, in each process again. Here it is imported once, by a server that forks.
"""

import functools
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from multiprocessing import forkserver, reduction
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import IO, Any
from unittest import mock

import pytest


@functools.cache
def context() -> Any:
    """For `multiprocessing`: forks what `preloaded` has imported; skips the test where nothing can be forked."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        pytest.skip("this system cannot fork")
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["preloaded"])
    here = Path(__file__).parent
    places = os.pathsep.join(filter(None, (str(here), str(here.parent), os.environ.get("PYTHONPATH"))))
    with mock.patch.dict(os.environ, {"PYTHONPATH": places, "PYTHONWARNINGS": "error"}):
        forkserver.ensure_running()
    return server


class _Stream:
    """A file that travels to the new process."""

    def __init__(self, file: IO[Any]) -> None:
        self.file = file

    def __reduce__(self):
        return _arrived, (reduction.DupFd(self.file.fileno()),)


def _arrived(descriptor: Any) -> int:
    return descriptor.detach()


def start(
    target: Callable[..., object],
    *arguments: object,
    stdin: IO[Any] | None = None,
    stdout: IO[Any] | None = None,
    stderr: IO[Any] | None = None,
) -> BaseProcess:
    """Call a function of a module in a new process, in this folder and environment; it prints where this one does."""
    streams = [file and _Stream(file) for file in (stdin, stdout, stderr)]
    process = context().Process(target=_call, args=(target, arguments, streams, str(Path.cwd()), dict(os.environ)))
    process.start()
    return process


def _call(target: Callable[..., object], arguments: tuple, streams: list, folder: str, environment: dict) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for number, (name, descriptor) in enumerate(zip(("stdin", "stdout", "stderr"), streams, strict=True)):
        if descriptor is not None:
            os.dup2(descriptor, number)
            os.close(descriptor)
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False, encoding="utf-8"))
    warnings.simplefilter("error")
    target(*arguments)


def run(
    target: Callable[..., object],
    *arguments: object,
    stdin: IO[Any] | None = None,
    check: bool = False,
    timeout: float | None = None,
) -> subprocess.CompletedProcess[str]:
    """As `subprocess.run`, with what was written as text; with `check` it must end well."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = start(target, *arguments, stdin=stdin, stdout=out, stderr=err)
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(list(map(str, arguments)), timeout or 0.0)
        out.seek(0)
        err.seek(0)
        done = subprocess.CompletedProcess(arguments, process.exitcode, out.read(), err.read())
    assert not check or done.returncode == 0, done.stderr
    return done


def command(*arguments: object) -> None:
    """What `python -m backtal` does."""
    from backtal.cli import main

    sys.argv = ["backtal", *map(str, arguments)]
    main()


def code(text: str, *arguments: object) -> None:
    """What `python -c TEXT` does."""
    sys.argv = ["-c", *map(str, arguments)]
    exec(compile(text, "<code>", "exec"), {"__name__": "__main__"})


def script(path: str | Path, *arguments: object) -> None:
    """What `python FILE` does."""
    sys.argv = list(map(str, (path, *arguments)))
    runpy.run_path(str(path), run_name="__main__")
