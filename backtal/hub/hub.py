"""Checkpoints by name: what a name stands for, fetching from the Hub, publishing there.

Only `huggingface_hub` talks to the Hub; its cache and environment variables apply. What a checkpoint folder is, and how
it is read safely, is in `backtal.hub.checkpoint`.
"""

import dataclasses
import os
import queue
import re
import tempfile
import threading
import warnings
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from backtal.errors import CheckpointError, name_some
from backtal.hub.checkpoint import CONFIG_FILE, WEIGHTS_FILE, CheckpointConfig, load_config, save, shorten
from backtal.settings.presets import RECIPES

# Short name -> repository and the commit that this version loads; None where nothing has been published.
PUBLISHED: dict[str, tuple[str, str | None]] = {
    "thumos14": ("backtal/thumos14", None),
    "activitynet1.2": ("backtal/activitynet1.2", None),
    "hacs": ("backtal/hacs", None),
    "beoid": ("backtal/beoid", None),
}
BUNDLED = {"shrec22": Path(__file__).parent / "checkpoints" / "shrec22"}

_REPOSITORY = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(?:@(?P<revision>.+))?", re.ASCII)
_PATIENCE = 2.0
_COMMIT = re.compile(r"[0-9a-f]{40}")


def fetch(
    name_or_path: str | os.PathLike[str],
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
) -> Path:
    """The local folder of a checkpoint, downloaded to the cache of `huggingface_hub` where it lives on the Hub.

    Args:
        name_or_path: a short name (`PUBLISHED`, `BUNDLED`), ``owner/name[@revision]``, or a folder: a `Path`, or
            text that names an existing folder or begins with ``.``, ``/`` or a drive. A short name always means the
            published checkpoint, whatever folder is called the same.
        revision: branch, tag or commit; instead of the one that a short name stands for.
        cache_dir: see `huggingface_hub.hf_hub_download`, as for the rest.
        token: of a private or gated repository.
        local_files_only: make no request.

    Raises:
        CheckpointError: if there is nothing of that name, or it cannot be downloaded; the message names repository,
            file and reason.

    Example:
        >>> fetch("./runs/mine")
        PosixPath('runs/mine')
    """
    short = isinstance(name_or_path, str) and (name_or_path in PUBLISHED or name_or_path in BUNDLED)
    if not short and _is_path(name_or_path):
        if revision is not None:
            raise CheckpointError(f"{name_or_path}: a folder has no revisions, but revision={revision!r} was given")
        return Path(name_or_path)
    name = str(name_or_path)
    if name in BUNDLED:
        return _bundled(name, revision)
    repository, wanted = PUBLISHED[name] if name in PUBLISHED else _parse(name)
    if name not in PUBLISHED and None not in (wanted, revision) and wanted != revision:
        raise CheckpointError(f"{name}: revision={revision!r} was given too; give one of them")
    if name == repository and revision is None:
        _check_is_no_folder(name)
    source = _Repository(name, repository, revision or wanted, cache_dir, token, local_files_only)
    if not source.needs_no_request() and (trouble := source.trouble()):
        source = dataclasses.replace(source, local_files_only=True, unreachable=trouble)
    folder = source.download(CONFIG_FILE).parent
    load_config(folder)
    # The commit of the first file, so that both are of one commit even where a branch moves in between.
    commit = folder.name if _COMMIT.fullmatch(folder.name) else source.revision
    dataclasses.replace(source, revision=commit).download(WEIGHTS_FILE)
    if name in PUBLISHED and source.revision is None:
        warnings.warn(
            f"{name}: nothing was published when this version of backtal was; loaded {repository}@{commit}, "
            "which nobody has vouched for",
            stacklevel=3,
        )
    return folder


def _is_path(name: str | os.PathLike[str]) -> bool:
    if not isinstance(name, str):
        return True
    return name.startswith(".") or Path(name).is_absolute() or os.path.isdir(name)  # noqa: PTH112 (never raises)


def _parse(name: str) -> tuple[str, str | None]:
    match = _REPOSITORY.fullmatch(name)
    if match is None:
        raise CheckpointError(
            f"{name}: neither a checkpoint's name ({', '.join([*PUBLISHED, *BUNDLED])}), "
            "nor an existing folder, nor owner/name[@revision] of a Hub repository"
        )
    return match["repository"], match["revision"]


def _check_is_no_folder(name: str) -> None:
    """Say at once that a run folder is missing whose parent is there: nobody means the Hub then."""
    parent = Path(name).parent
    if parent.is_dir() and name not in (repository for repository, _ in PUBLISHED.values()):
        runs = sorted(path.name for path in parent.iterdir() if (path / CONFIG_FILE).is_file())
        holds = f"holds the runs {name_some(runs)}" if runs else "holds no run"
        raise CheckpointError(
            f"{name}: no such folder; {parent} is here and {holds} (the Hub's repository of that name is {name}@main)"
        )


def _bundled(name: str, revision: str | None) -> Path:
    if revision is not None:
        raise CheckpointError(f"{name}: is part of backtal and has no revisions, but revision={revision!r} was given")
    if not BUNDLED[name].is_dir():
        raise CheckpointError(f"{name}: {BUNDLED[name]} is missing from this installation; install backtal's wheel")
    return BUNDLED[name]


@dataclasses.dataclass(frozen=True)
class _Repository:
    name: str
    repository: str
    revision: str | None
    cache_dir: str | Path | None
    token: str | bool | None
    local_files_only: bool
    unreachable: str = ""

    def needs_no_request(self) -> bool:
        """Whether the files are not asked for: requests are off, or the commit is in the cache."""
        from huggingface_hub import constants, try_to_load_from_cache

        if self.local_files_only or constants.HF_HUB_OFFLINE:
            return True
        exact = self.revision is not None and _COMMIT.fullmatch(self.revision)
        where = {"cache_dir": self.cache_dir, "revision": self.revision}
        files = (CONFIG_FILE, WEIGHTS_FILE)
        return bool(exact) and all(isinstance(try_to_load_from_cache(self.repository, f, **where), str) for f in files)

    def trouble(self) -> str:
        """Why the Hub cannot be reached, found out in `_PATIENCE` seconds; its own client tries for half a minute."""
        from huggingface_hub import constants
        from huggingface_hub.utils import get_session

        answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        session, address = get_session(), f"{constants.ENDPOINT}/api/models/{self.repository}"

        def ask() -> None:
            try:
                session.head(address, timeout=_PATIENCE)
                answers.put("")
            except Exception as failure:  # its HTTP client's, which changes between versions
                answers.put(_first_line(failure))

        threading.Thread(target=ask, daemon=True).start()
        try:
            return answers.get(timeout=_PATIENCE)
        except queue.Empty:
            return f"no answer within {_PATIENCE:g} s"

    def download(self, filename: str) -> Path:
        from huggingface_hub import hf_hub_download

        try:
            path = hf_hub_download(
                self.repository,
                filename,
                revision=self.revision,
                cache_dir=self.cache_dir,
                token=self.token,
                local_files_only=self.local_files_only,
                library_name="backtal",
            )
        except Exception as failure:  # its own, its HTTP client's (which changes between versions), the disk's
            where = self.repository if self.revision is None else f"{self.repository}@{self.revision}"
            raise CheckpointError(f"{where}: {filename}: {self._reason(failure)}{self._advice()}") from None
        return Path(path)

    def _reason(self, failure: Exception) -> str:
        from huggingface_hub import constants, errors

        page = f"{constants.ENDPOINT}/{self.repository}"
        nor_folder = "; there is no such folder here either" if self.name == self.repository else ""
        if isinstance(failure, errors.GatedRepoError):
            return f"access is restricted: ask for it at {page}, then log in (`hf auth login`) or pass token="
        if isinstance(failure, errors.RepositoryNotFoundError):
            return f"no such repository at {constants.ENDPOINT} (or a private one: log in or pass token=){nor_folder}"
        if isinstance(failure, errors.RevisionNotFoundError):
            return f"no such revision at {page}"
        if isinstance(failure, errors.LocalEntryNotFoundError):
            if self.unreachable:
                return f"not in the cache, and asking {constants.ENDPOINT} failed: {self.unreachable}{nor_folder}"
            if self.local_files_only or constants.HF_HUB_OFFLINE:
                return f"not in the cache, and requests are off (local_files_only or HF_HUB_OFFLINE){nor_folder}"
            cause = failure.__cause__ or failure
            return f"not in the cache, and asking {constants.ENDPOINT} failed: {_first_line(cause)}{nor_folder}"
        if isinstance(failure, errors.EntryNotFoundError):
            return f"no such file at {page}: not a checkpoint of backtal"
        return f"cannot be downloaded from {constants.ENDPOINT}: {_first_line(failure)}"

    def _advice(self) -> str:
        """How to get a model of a benchmark for which nothing is published."""
        if self.name not in PUBLISHED or PUBLISHED[self.name][1] is not None:
            return ""
        released = f"{self.name}-released"
        convert = (
            f"convert the released file:  backtal convert FILE.pth MODEL --recipe {released}"
            if released in RECIPES
            else "there is no recipe of a released system for it, so no file can be converted;"
        )
        return (
            f"\nNothing is published as {self.name!r} yet. Get a model today:"
            f"\n  {convert}"
            f"\n  or train on your features:  backtal train DATA --out RUN --recipe {self.name}"
        )


def _first_line(failure: BaseException) -> str:
    lines = str(failure).split("\n\n")[0].splitlines()
    return shorten(f"{type(failure).__name__}: {lines[0]}" if lines else type(failure).__name__)


def push(
    repository: str,
    config: CheckpointConfig,
    state: Mapping[str, Tensor],
    *,
    token: str | bool | None = None,
    private: bool | None = None,
    revision: str | None = None,
    commit_message: str = "Checkpoint of backtal",
    create_pr: bool = False,
) -> str:
    """Publish a checkpoint in a Hub repository, which is made where there is none.

    Returns:
        ``owner/name@commit``, which `fetch` takes.

    Raises:
        CheckpointError: if it cannot be saved, or the Hub refuses it or cannot be reached.
    """
    from huggingface_hub import HfApi

    api = HfApi(token=token, library_name="backtal")
    with tempfile.TemporaryDirectory() as folder:
        save(folder, config, state, name=repository)
        try:
            created = api.create_repo(repository, private=private, exist_ok=True).repo_id
            if created != repository:  # the card names it in full
                repository = created
                save(folder, config, state, name=repository)
            if revision is not None and not create_pr:
                api.create_branch(repository, branch=revision, exist_ok=True)
            commit = api.upload_folder(
                repo_id=repository,
                folder_path=folder,
                revision=revision,
                commit_message=commit_message,
                create_pr=create_pr,
            )
        except Exception as failure:  # as in downloading
            raise CheckpointError(f"{repository}: cannot be pushed to {api.endpoint}: {_first_line(failure)}") from None
    return f"{repository}@{commit.oid}"
