import os
from pathlib import Path

import pytest
import torch

DATA = Path(__file__).parent / "data"
SHARED = Path(os.environ.get("BACKTAL_SHARED", Path(__file__).parents[2] / "shared"))


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def shared(*parts: str) -> Path:
    """A file of the research data that is not part of the repository; skips the test where it is missing."""
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"research data not available: {'/'.join(parts)}")
    return path
