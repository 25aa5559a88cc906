"""What this runs on: versions, device and backends, for whoever helps with a problem."""

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Any

import torch

from backtal.ops import BACKENDS, why_not_triton

_REQUIREMENT = re.compile(r"(?P<package>[\w.-]+)(?:.*extra == ['\"](?P<extra>\w+)['\"])?")
_FOR_DEVELOPERS = ("docs", "test")


def environment() -> dict[str, Any]:
    """Versions of backtal, Python and every package it can use, the device, and the affinity convolution's backends.

    Packages stand by the extra that brings them, ``core`` for those that always come; None is not installed. Of a
    backend that cannot run here, the reason is given. No path and no name of a person or machine is among them.

    Example:
        >>> environment()["backends"]["blas"]
        'runs'
    """
    packages: dict[str, dict[str, str | None]] = {}
    for requirement in requires("backtal") or []:
        found = _REQUIREMENT.match(requirement)
        assert found, requirement
        extra = found["extra"] or "core"
        if found["package"] != "backtal" and extra not in _FOR_DEVELOPERS:
            packages.setdefault(extra, {})[found["package"]] = _version(found["package"])
    device, sample = _device()
    return {
        "backtal": version("backtal"),
        "python": platform.python_version(),
        "system": platform.platform(),
        "device": device,
        "backends": dict.fromkeys(BACKENDS, "runs") | {"triton": why_not_triton(sample) or "runs"},
        "packages": packages,
    }


def environment_text() -> str:
    """The same, one line a thing, to be pasted into a report."""
    found = environment()
    packages, backends = found.pop("packages"), found.pop("backends")
    rows = found | {f"{name} backend": state for name, state in backends.items()}
    for extra, versions in packages.items():
        name = "packages" if extra == "core" else f"extra {extra}"
        rows[name] = ", ".join(f"{package} {number or 'not installed'}" for package, number in versions.items())
    return "\n".join(f"{name:20}{value}" for name, value in rows.items())


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _device() -> tuple[str, torch.Tensor]:
    """The device that training takes, in words, and a number on it."""
    if torch.cuda.is_available():
        name, (major, minor) = torch.cuda.get_device_name(), torch.cuda.get_device_capability()
        built = f"ROCm {torch.version.hip}" if torch.version.hip else f"CUDA {torch.version.cuda}"
        return f"{name}, capability {major}.{minor}, {built}", torch.zeros(1, device="cuda")
    kind = "Apple's MPS" if torch.backends.mps.is_available() else "CPU"
    return f"{kind}, {os.cpu_count()} cores, {torch.get_num_threads()} threads", torch.zeros(1)
