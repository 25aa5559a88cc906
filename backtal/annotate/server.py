"""The server behind the page: what is asked for, and what is answered."""

import asyncio
import contextlib
import hashlib
import json
import logging
import secrets
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from backtal.annotate.advisor import Advisor
from backtal.annotate.folder import Folder, is_played
from backtal.annotate.frames import HEIGHTS, RATE, SHEET, Facts, Sheets, count_of, read_facts
from backtal.annotate.guard import Guard
from backtal.annotate.store import Stale, State, Store
from backtal.clicks.clicks import BACKGROUND
from backtal.errors import BackTALError

PAGE = Path(__file__).parent / "page"
FIRST_PORT, PORTS = 8765, 20
BACKLOG = 64  # connections that are taken at once
_KINDS = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


class FileFacts:
    """`read_facts` of each video, read once."""

    def __init__(self, folder: Folder) -> None:
        self._folder, self._locks = folder, {video: threading.Lock() for video in folder.videos}
        self._known: dict[str, Facts] = {}

    def __call__(self, video: str) -> Facts:
        """The facts of a video.

        Raises:
            DataError: if its file cannot be read.
        """
        path = self._folder.video(video)
        with self._locks[video]:
            if video not in self._known:
                self._known[video] = read_facts(path)
            return self._known[video]

    def known(self) -> dict[str, Facts]:
        """Those read so far."""
        return dict(self._known)

    def read_all(self) -> None:
        """Read the rest, in a thread that ends with the program."""

        def work() -> None:
            for video in self._folder.videos:
                with contextlib.suppress(BackTALError, OSError):
                    self(video)

        threading.Thread(target=work, daemon=True, name="facts").start()


def make_app(
    store: Store, facts: FileFacts, *, annotator: str, port: int, token: str, advisor: Advisor | None = None
) -> Guard:
    """The ASGI application.

    Args:
        store: where annotations are saved.
        facts: of the videos.
        annotator: whose clicks the page shows first.
        port: that the server listens on.
        token: without which nothing is answered.
        advisor: the model that makes suggestions.
    """
    folder, sheets = store.folder, Sheets()

    def page(request: Request) -> Response:
        return FileResponse(PAGE / "index.html", media_type="text/html")

    def page_file(request: Request) -> Response:
        name = request.path_params["name"]
        found = next((path for path in PAGE.iterdir() if path.name == name and path.suffix in _KINDS), None)
        if found is None:
            raise HTTPException(404, "no such file")
        return FileResponse(found, media_type=_KINDS[found.suffix])

    def overview(request: Request) -> Response:
        who = request.query_params.get("annotator") or annotator
        durations = {name: found.duration for name, found in facts.known().items()} | store.known_durations()
        states = store.states(who)
        opinions = advisor.ready() if advisor else {}
        videos = []
        for name, state in states.items():
            opinion = opinions.get(name)
            value = None if opinion is None else round(opinion.worth(_background(state)), 3)
            summary = {"marks": len(state.marks), "done": state.done, "seconds": state.seconds, "worth": value}
            summary |= {"labels": len({*state.labels, *state.given})}
            videos.append({"name": name, "duration": durations.get(name), **summary})
        content: dict[str, Any] = {"dataset": folder.root.name, "annotator": who, "labels": store.labels}
        content |= {"annotators": sorted({*store.annotators(), annotator, who}), "videos": videos}
        content |= {"id": hashlib.sha256(str(folder.root).encode()).hexdigest()[:12], "advised": advisor is not None}
        content |= {"background": BACKGROUND}
        return _answer(content)

    def one(request: Request) -> Response:
        name = request.path_params["video"]
        path = folder.video(name)
        found = facts(name)
        duration = store.duration(name)
        content = store.state(_annotator(request), name).to_dict()
        content |= {"name": name, "file": path.name, "plays": is_played(path), "duration": duration}
        content |= {"count": count_of(duration), "rate": RATE, "sheet": SHEET, "heights": HEIGHTS}
        return _answer(content | {"aspect": found.aspect})

    def save(request: Request, change: Any) -> Response:
        if not isinstance(change, dict):
            raise BackTALError("expected a JSON object")
        try:
            state = store.save(_annotator(request), request.path_params["video"], change)
        except Stale as stale:
            return _answer(stale.state.to_dict(), 409)
        return _answer(state.to_dict())

    def spend(request: Request, change: Any) -> Response:
        if not isinstance(change, dict):
            raise BackTALError("expected a JSON object")
        visit, seconds = change.get("visit"), change.get("seconds")
        total = store.add_time(_annotator(request), request.path_params["video"], visit, seconds)
        return _answer({"seconds": total})

    def sheet(request: Request) -> Response:
        name = request.path_params["video"]
        path, count = folder.video(name), count_of(store.duration(name))
        jpeg = sheets.sheet(path, request.path_params["index"], count, request.path_params["height"])
        return Response(jpeg, media_type="image/jpeg", headers={"cache-control": "private, max-age=600"})

    def film(request: Request) -> Response:
        return FileResponse(folder.video(request.path_params["video"]))

    def suggestions(request: Request) -> Response:
        name = request.path_params["video"]
        folder.video(name)
        if advisor is None:
            raise HTTPException(404, "no model was given")
        opinion = advisor.opinion(name)
        if opinion is None:
            return _answer({"waiting": True}, 202)
        return _answer(
            opinion.to_dict(_background(store.state(_annotator(request), name)), advisor.model.config.labels)
        )

    def _annotator(request: Request) -> str:
        return request.query_params.get("annotator") or annotator

    routes = [
        Route("/", page),
        Route("/page/{name}", page_file),
        Route("/api/videos", overview),
        # Names of videos may hold slashes.
        Route("/api/videos/{video:path}/time", _with_body(spend), methods=["POST"]),
        Route("/api/videos/{video:path}/suggestions", suggestions),
        Route("/api/videos/{video:path}", one),
        Route("/api/videos/{video:path}", _with_body(save), methods=["PUT"]),
        Route("/frames/{video:path}/{height:int}/{index:int}", sheet),
        Route("/film/{video:path}", film),
    ]
    handlers: dict[Any, Callable] = {BackTALError: _bad, OSError: _unsaved, HTTPException: _told, Exception: _broken}
    return Guard(Starlette(routes=routes, exception_handlers=handlers), port, token)


def _background(state: State) -> list[float]:
    return [time for time, label in state.marks if label == BACKGROUND]


def _with_body(handle: Callable[[Request, Any], Response]) -> Callable:
    async def endpoint(request: Request) -> Response:
        try:
            content = json.loads(await request.body())
        except (ValueError, RecursionError):
            raise BackTALError("not valid JSON") from None
        return await run_in_threadpool(handle, request, content)

    return endpoint


def _answer(content: Any, status: int = 200) -> Response:
    # Plain ASCII: a lone surrogate, which JSON may hold, has no other encoding.
    return Response(json.dumps(content), status, media_type="application/json")


async def _bad(request: Request, failure: Exception) -> Response:
    return _answer({"error": str(failure)}, 422)


async def _unsaved(request: Request, failure: Exception) -> Response:
    assert isinstance(failure, OSError)
    where = f" ({failure.filename})" if failure.filename else ""
    return _answer({"error": f"{failure.strerror or failure}{where}"}, 507)


async def _told(request: Request, failure: Exception) -> Response:
    assert isinstance(failure, HTTPException)
    return _answer({"error": failure.detail}, failure.status_code)


async def _broken(request: Request, failure: Exception) -> Response:
    return _answer({"error": "an error in backtal itself; the terminal shows it"}, 500)


def listen(port: int | None) -> socket.socket:
    """A socket on this machine alone: of `port` (0 for any), or of the first free one from 8765 on where None.

    Raises:
        OSError: if the port is taken.
    """
    wanted = range(FIRST_PORT, FIRST_PORT + PORTS) if port is None else [port]
    failure = OSError("no port is free")
    for number in wanted:
        opened = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            opened.bind(("127.0.0.1", number))
        except OSError as error:
            opened.close()
            failure = OSError(error.errno, f"port {number} on 127.0.0.1: {error.strerror}")
            continue
        return opened
    raise failure


def serve(
    folder: Folder,
    labels: tuple[str, ...] | None,
    *,
    annotator: str = "me",
    model: Any = None,
    subset: str = "training",
    port: int | None = None,
    opened: Callable[[str], None] = print,
) -> None:
    """Serve the page until it is interrupted.

    Args:
        folder: the videos and where to write to; see `backtal.annotate.open_folder`.
        labels: names of the actions; None for those in ``annotations.json``.
        annotator: whose clicks the page shows first.
        model: a `LocalizationModel` that makes suggestions.
        subset: what a video belongs to once its labels are ticked.
        port: to listen on; None for the first free one from 8765 on, 0 for any.
        opened: is called with the page's address once the server listens.

    Raises:
        DataError: if there are no labels, or a file of the folder is malformed.
        OSError: if the port is taken.
    """
    import uvicorn

    from backtal.annotate.connections import Connection

    facts = FileFacts(folder)
    store = Store(folder, labels, facts, subset)
    store.states(annotator)
    advisor = Advisor(model, folder) if model is not None else None
    with listen(port) as connection:
        number, token = connection.getsockname()[1], secrets.token_urlsafe(24)
        app = make_app(store, facts, annotator=annotator, port=number, token=token, advisor=advisor)
        config = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off", server_header=False)
        config.timeout_graceful_shutdown = 2
        config.http, config.ws, config.backlog = Connection, "none", BACKLOG
        facts.read_all()
        if advisor:
            advisor.start()
        connection.listen(BACKLOG)
        opened(f"http://127.0.0.1:{number}/?token={token}")
        log = logging.getLogger("uvicorn.error")
        log.setLevel(logging.ERROR)
        log.addFilter(_is_no_end)
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[connection])


def _is_no_end(record: logging.LogRecord) -> bool:
    """Whether a message is about something else than an answer that Ctrl-C cut short."""
    cancelled = record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError)
    return not cancelled and not str(record.msg).startswith("Cancel ")
