"""The same extraction on many machines: a Ray Data pipeline. Needs Ray, the extra `ray`."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from backtal.errors import install
from backtal.video.extract import Report, extract_files, pending
from backtal.video.extractors import chosen_extractor

# Videos that an actor takes at a time: batches reach across them.
_VIDEOS_AT_ONCE = 8


class _Actor:
    """One copy of the network; takes videos, writes their features, returns what became of them."""

    def __init__(self, extractor: Mapping[str, Any], out: str, options: Mapping[str, Any]) -> None:
        self.extractor, self.out, self.options = chosen_extractor(**extractor), out, options

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        videos = dict(zip(map(Path, batch["path"]), map(str, batch["name"]), strict=True))
        report = extract_files(videos, self.extractor, self.out, **self.options)
        rows = [("written", path, "") for path in report.written] + [("kept", path, "") for path in report.kept]
        rows += [("failed", path, reason) for path, reason in report.failed.items()]
        rows += [("damaged", path, reason) for path, reason in report.damaged.items()]
        kind, path, reason = zip(*rows, strict=True)
        return {"kind": list(kind), "path": list(path), "reason": list(reason)}


def extract_on_ray(
    paths: Sequence[str | Path] | Mapping[Path, str],
    extractor: Mapping[str, Any],
    out: str | Path,
    *,
    actors: int = 1,
    gpus_per_actor: float | None = None,
    **options: Any,
) -> Report:
    """As `extract_files`, by actors on a Ray cluster: the one that is connected or configured, else a local one.

    Args:
        paths: the videos, as for `extract_files`, on storage that all machines share.
        extractor: keyword arguments of `load_extractor`; every actor builds its own.
        out: the folder to write to, shared as well.
        actors: copies of the network.
        gpus_per_actor: what each reserves; None for one where the cluster has any.
        options: as for `extract_files`.

    Raises:
        ImportError: if Ray is not installed.
        DataError: as `extract_files` does.
    """
    out = Path(out).absolute()
    report, left = pending(paths, chosen_extractor(**extractor).spec, out)
    if not left:
        return report
    name, weights = absolute_extractor(extractor["name"], extractor.get("weights") or ())
    extractor = {**extractor, "weights": weights, "name": name}
    items = [
        {"path": str(path.absolute()), "name": target.relative_to(out).with_suffix("").as_posix()}
        for path, target in left.items()
    ]
    rows = rows_on_ray(
        *(items, _Actor, (extractor, str(out), options), _VIDEOS_AT_ONCE),
        actors=actors,
        gpus_per_actor=gpus_per_actor,
    )
    for row in rows:
        if row["kind"] in ("written", "kept"):
            getattr(report, row["kind"]).append(row["path"])
        else:
            getattr(report, row["kind"])[row["path"]] = row["reason"]
    return report


def absolute_extractor(name: str | None, weights: Iterable[str | Path]) -> tuple[str | None, tuple[Path, ...]]:
    """The name of an extractor and the files of its weights, whatever the folder of the process is.

    Example:
        >>> absolute_extractor("i3d", ["/w/rgb.pt"])[0], absolute_extractor("/a/own.py:build", [])[0]
        ('i3d', '/a/own.py:build')
    """
    if name is not None and ".py:" in name:
        file, _, function = name.rpartition(":")
        name = f"{Path(file).absolute()}:{function}"
    return name, tuple(Path(path).absolute() for path in weights)


def rows_on_ray(
    items: Sequence[dict[str, Any]],
    actor: type,
    arguments: tuple[Any, ...],
    at_once: int,
    *,
    actors: int = 1,
    gpus_per_actor: float | None = None,
) -> Iterator[dict[str, Any]]:
    """What actors make of items: on the Ray cluster that is connected or configured, else a local one.

    Args:
        items: rows of a Ray dataset.
        actor: a class whose objects turn batches of rows into batches of rows.
        arguments: that it is made of.
        at_once: items that an actor takes at a time.
        actors: how many there are.
        gpus_per_actor: what each reserves; None for one where the cluster has any.

    Raises:
        ImportError: if Ray is not installed.
    """
    try:
        import ray  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ImportError(f"the engine ray needs Ray Data: {install('ray')}") from None
    if not ray.is_initialized():
        ray.init(logging_level=logging.ERROR)
    if gpus_per_actor is None:
        gpus_per_actor = 1 if ray.cluster_resources().get("GPU") else 0
    blocks = min(len(items), max(actors, -(-len(items) // at_once)))
    return (
        ray.data.from_items(list(items), override_num_blocks=blocks)
        .map_batches(
            actor,
            fn_constructor_args=arguments,
            batch_size=at_once,
            compute=ray.data.ActorPoolStrategy(size=actors),
            num_gpus=gpus_per_actor,
        )
        .iter_rows()
    )
