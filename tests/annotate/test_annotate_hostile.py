"""A thousand hostile requests to the click page's server, while others annotate through it."""

import asyncio
import contextlib
import http.client
import json
import random
import socket
import threading
import time
from pathlib import Path
from urllib.parse import quote

import pytest
from annotate_server import Served, chromium, make_videos
from video_files import moving_bar, times_at, write_video

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

import uvicorn

from backtal import read_clicks
from backtal.annotate import connections, guard
from backtal.annotate.server import listen
from backtal.cli.annotating import _way_to

SECRET = "the-secret-that-nobody-may-read"
NUMBER = 1000


@pytest.fixture
def served(tmp_path):
    """A folder with a link out of it that appears after the start, beside things that must stay as they are."""
    around = tmp_path / "around"
    data = make_videos(around / "data", {"a.mp4": 20, "b é%20#?&.mp4": 10, "victim.mp4": 4})
    (around / "secret.txt").write_text(SECRET)
    (around / "secret.json").write_text(json.dumps({"secret": SECRET}))
    write_video(around / "outside.mp4", times_at(8, 5), moving_bar)
    (data / "videos" / "link.mp4").symlink_to(around / "outside.mp4")
    server = Served(data, "--labels", str(data / "labels.txt"), "--port", "0", log=tmp_path / "log.txt")
    (data / "videos" / "victim.mp4").unlink()
    (data / "videos" / "victim.mp4").symlink_to(around / "secret.txt")
    yield server, data, around
    server.stop()


def outside(around):
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes())
        for path in around.rglob("*")
        if path.is_file() and "data" not in path.relative_to(around).parts
    } | {"names": sorted(path.name for path in around.iterdir())}


UP = [
    "..",
    "../..",
    "%2e%2e",
    "..%2f..",
    "%2e%2e%2f%2e%2e%2fsecret.txt",
    "..%5c..",
    "%00",
    "/etc/passwd",
    "%2fetc%2fpasswd",
]
ODD = [
    "\u202e",
    "é" * 50,
    "\U0001f600",
    "%ff%fe",
    "%ed%a0%80",
    "a%0d%0aX-Injected:%201",
    "<script>",
    "'\"",
    "%",
    "%u0041",
]
VIDEOS = [
    "a",
    "b%20%C3%A9%2520%23%3F%26",
    "victim",
    "link",
    "outside",
    "../outside",
    "..%2Foutside",
    "%2e%2e%2foutside.mp4",
]
PAGES = [
    "/page/{}",
    "/film/{}",
    "/frames/{}/96/0",
    "/api/videos/{}",
    "/api/videos/{}/suggestions",
    "/{}",
    "/page/../{}",
]
BODIES = [
    b"", b"{", b"null", b"[]", b"7", b'"x"', b"\xff\xfe\x00", b"{" * 5000, b"[" * 200_000,
    b'{"marks": NaN}', b"1" * 5000,
    json.dumps({"marks": [{"time": 1e400, "label": "jump"}], "labels": [], "done": False}).encode(),
    json.dumps({"marks": [{"time": 1, "label": "\ud800"}], "labels": [], "done": False}).encode(),
    json.dumps({"marks": [], "labels": ["../../x"], "done": False, "base": None}).encode(),
    json.dumps({"marks": [{"time": 10**400, "label": "jump"}], "labels": ["\ud800"], "done": False}).encode(),
    json.dumps({"marks": {"a": 1}, "labels": {}, "done": None, "base": ["x"]}).encode(),
    json.dumps({"visit": "../x", "seconds": -1}).encode(),
    b"x" * (3 << 20),
]  # fmt: skip
HOSTS = ["evil.example", "127.0.0.1", "127.0.0.1:1", "localhost.evil.example", "[::1]", "", "0.0.0.0:{port}", "é"]
ORIGINS = [
    "http://evil.example",
    "null",
    "https://127.0.0.1:{port}",
    "http://127.0.0.1:1",
    "http://127.0.0.1:{port}.evil",
]
COOKIES = [
    "",
    "x",
    "backtal-{port}=wrong",
    "backtal-1={token}",
    "backtal-{port}=",
    '=;=;"',
    "backtal-{port}={token}x",
    "é",
]


def hostile(rng, server):
    """One request: kind, method, path, headers, body. At least one thing about it is wrong."""
    good = {"Host": f"127.0.0.1:{server.port}", "Cookie": server.cookie, "Origin": f"http://127.0.0.1:{server.port}"}
    json_too = good | {"Content-Type": "application/json"}
    filled = {"port": server.port, "token": server.token}
    path = rng.choice(PAGES).format(rng.choice(VIDEOS))
    kind = rng.choice(["traversal", "host", "origin", "token", "body", "unicode", "method", "site"])
    if kind == "traversal":
        place = rng.choice([*PAGES, "/api/videos/a?annotator={}", "/api/videos?annotator={}"])
        return kind, "GET", place.format(rng.choice(UP)), good, None
    if kind == "host":
        return kind, "GET", path, good | {"Host": rng.choice(HOSTS).format(**filled)}, None
    if kind == "origin":
        method = rng.choice(["GET", "PUT"])
        bad = rng.choice([*ORIGINS, None] if method == "PUT" else ORIGINS)
        headers = {**good, "Origin": bad and bad.format(**filled), "Content-Type": "application/json"}
        return kind, method, "/api/videos/a", headers, b"{}" if method == "PUT" else None
    if kind == "token":
        query = rng.choice(["", "?token=", "?token=wrong", f"?token={server.token}"])
        return kind, "GET", "/api/videos" + query, good | {"Cookie": rng.choice(COOKIES).format(**filled)}, None
    if kind == "body":
        place = rng.choice(
            ["/api/videos/a", "/api/videos/a/time", "/api/videos/a?annotator=../../x", "/api/videos/none"]
        )
        method = "POST" if "time" in place else "PUT"
        return kind, method, place, good | {"Content-Type": "application/json"}, rng.choice(BODIES)
    if kind == "unicode":
        odd = rng.choice(ODD)
        place = rng.choice([*PAGES, "/api/videos/a?annotator={}", "/api/videos?annotator={}"])
        return kind, "GET", place.format(odd), good, None
    if kind == "method":
        return kind, rng.choice(["DELETE", "PATCH", "POST", "TRACE", "OPTIONS", "X" * 40]), path, json_too, b"{}"
    return kind, "GET", "/api/videos", good | {"Sec-Fetch-Site": rng.choice(["cross-site", "same-site"])}, None


def send(server, method, path, headers, body):
    """Status, headers and content; written by hand, as no client library sends all of this."""
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items() if value is not None)]
    lines += [f"Content-Length: {len(body)}"] if body is not None else []
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        head = "\r\n".join([*lines, "Connection: close", "", ""]).encode("utf-8", "surrogatepass")
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # refused before all was sent
            connection.sendall(head + (body or b""))
        answer = http.client.HTTPResponse(connection)
        try:
            answer.begin()
            return answer.status, dict(answer.getheaders()), answer.read()
        except (http.client.HTTPException, ConnectionResetError):
            return 0, {}, b""


def annotate(server, number, wanted):
    """Somebody who clicks at every second of `wanted`, one at a time, as the page does it."""
    path = "/api/videos/a?annotator=crowd"
    status, state = server.ask(path)
    for second in wanted:
        while True:
            marks = [*state["marks"], {"time": second, "label": "background"}]
            change = {"base": state["revision"], "marks": marks, "labels": state["labels"], "done": False}
            status, state = server.ask(path, change)
            assert status in (200, 409), state
            if status == 200:
                break


def test_a_thousand_hostile_requests(served):
    server, data, around = served
    before = outside(around)
    rng = random.Random(7)
    halves = [k / 2 for k in range(40)]
    workers = [threading.Thread(target=annotate, args=(server, n, halves[n::4])) for n in range(4)]
    for worker in workers:
        worker.start()
    counts = {}
    for _ in range(NUMBER):
        kind, method, path, headers, body = hostile(rng, server)
        status, answered, content = send(server, method, path, headers, body)
        counts.setdefault(kind, []).append(status)
        said = (method, path, headers, status, content[:300])
        assert SECRET.encode() not in content, said
        assert b"Traceback" not in content, said
        assert b'File "' not in content, said
        assert b"root:" not in content, said
        assert "X-Injected" not in answered, said
        assert status != 500, said
        if kind in ("host", "origin", "token", "site", "method", "body"):
            assert not 200 <= status < 300, said
        if any(name in path for name in ("outside", "victim", "link")):
            assert status >= 400 or status == 0, said
        if status:
            assert "default-src 'none'" in answered.get("content-security-policy", "") or status == 400, said
    for worker in workers:
        worker.join()
    assert sum(map(len, counts.values())) == NUMBER
    assert outside(around) == before
    status, state = server.ask("/api/videos/a?annotator=crowd")
    assert status == 200
    assert [mark["time"] for mark in state["marks"]] == halves
    known = {"annotations.json", "clicks", "clicks/crowd.txt", ".annotate.lock", "videos", "labels.txt", "progress"}
    known |= {f"videos/{name}.mp4" for name in ("a", "b é%20#?&", "victim", "link")}
    assert {path.relative_to(data).as_posix() for path in data.rglob("*")} <= known
    log = server.stop()
    assert "Traceback" not in log, log
    assert log.splitlines()[-1].startswith("Ctrl-C stops"), log
    print({kind: {status: found.count(status) for status in sorted(set(found))} for kind, found in counts.items()})


@pytest.mark.parametrize("name", ["Abuse/clip 1", "می\u200cرود", "a/time", "50% %2F #1?&"])
def test_the_page_asks_for_videos_of_any_name(tmp_path, name):
    data = make_videos(tmp_path / "data", {"other.mp4": 2})
    (data / "videos" / name).parent.mkdir(parents=True, exist_ok=True)
    (data / "videos" / "other.mp4").rename(data / "videos" / f"{name}.mp4")
    server = Served(data, "--labels", str(data / "labels.txt"), log=tmp_path / "log.txt")
    try:
        place = quote(name, safe="")  # as encodeURIComponent
        status, state = server.ask(f"/api/videos/{place}?annotator=me")
        assert (status, state["name"]) == (200, name)
        marks = [{"time": 0.5, "label": "background"}]
        wanted = {"base": state["revision"], "marks": marks, "labels": ["jump"], "done": True}
        assert server.ask(f"/api/videos/{place}?annotator=me", wanted)[0] == 200
        spent = {"visit": "0123abcd", "seconds": 3.5}
        assert server.ask(f"/api/videos/{place}/time?annotator=me", spent, method="POST") == (200, {"seconds": 3.5})
        assert server.ask(f"/frames/{place}/96/0")[1][:2] == b"\xff\xd8"
        assert server.ask(f"/film/{place}")[0] == 200
        assert read_clicks(data / "clicks" / "me.txt")[name].times() == [0.5]
    finally:
        server.stop()


def test_what_is_not_http_and_bodies_without_an_end(served):
    server, _, _ = served
    for raw in (
        b"\x16\x03\x01\x02\x00" + bytes(200),
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"A" * 100_000,
        b"PUT /api/videos/a HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Length: -5\r\n\r\n" % server.port,
    ):
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
            try:
                connection.sendall(raw)
                connection.shutdown(socket.SHUT_WR)
                assert b"Traceback" not in connection.recv(100_000)
            except ConnectionResetError:
                pass
    head = (
        f"PUT /api/videos/a HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nCookie: {server.cookie}\r\n"
        f"Origin: http://127.0.0.1:{server.port}\r\nContent-Type: application/json\r\n"
        "Transfer-Encoding: chunked\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(head.encode())
        chunk = b"10000\r\n" + bytes(0x10000) + b"\r\n"
        try:
            for _ in range(200):
                connection.sendall(chunk)
        except (BrokenPipeError, ConnectionResetError):
            pass
        answer = connection.recv(1000)
    assert answer == b"" or b" 413 " in answer
    assert server.ask("/api/videos")[0] == 200
    assert "Traceback" not in server.stop()


def test_connections_that_never_ask_do_not_keep_others_out(served):
    server, data, _ = served
    resource = pytest.importorskip("resource")
    if not hasattr(resource, "prlimit"):
        pytest.skip("no prlimit on this system")
    resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (256, 256))
    good = {"Cookie": server.cookie}
    with contextlib.ExitStack() as stack:
        page = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
        stack.callback(page.close)
        for number in range(400):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=30))
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(b"GET / HTTP/1.1\r\nHost: a")
            if number % 50 == 49:
                page.request("GET", "/film/a", headers=good | {"Range": "bytes=100-199"})
                answer = page.getresponse()
                assert (answer.status, answer.read()) == (206, (data / "videos" / "a.mp4").read_bytes()[100:200])
        assert server.ask("/api/videos")[0] == 200
    assert server.ask("/api/videos")[0] == 200
    assert len(server.stop().splitlines()) == 4


async def slow(scope, receive, send):
    """Answers in three parts, longer than there is patience for a head."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"3")]})
    for part in range(3):
        await asyncio.sleep(0.4)
        await send({"type": "http.response.body", "body": b"x", "more_body": part < 2})


@pytest.fixture
def impatient(monkeypatch):
    """The port of a server in this process that waits half a second for a head, and for a body."""
    monkeypatch.setattr(connections, "PATIENCE", 0.5)
    monkeypatch.setattr(guard, "PATIENCE", 0.5)
    with listen(0) as opened:
        port = opened.getsockname()[1]
        options = {"lifespan": "off", "log_level": "error", "ws": "none"}
        app = guard.Guard(slow, port, "token")
        server = uvicorn.Server(uvicorn.Config(app, http=connections.Connection, **options))
        thread = threading.Thread(target=server.run, args=([opened],))
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield port
        server.should_exit = True
        thread.join()


def test_a_head_that_never_ends_ends_the_connection(impatient):
    head = f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{impatient}\r\nCookie: backtal-{impatient}=token\r\n\r\n".encode()
    for first in (b"", head, head + head):
        with socket.create_connection(("127.0.0.1", impatient), timeout=10) as connection:
            connection.sendall(first)
            answers = b""
            while answers.count(b"xxx") < first.count(b"GET"):
                answers += connection.recv(1000)
            began = time.monotonic()
            try:
                for byte in b"GET / HTTP/1.1" * 100:
                    connection.sendall(bytes([byte]))
                    time.sleep(0.1)
            except (BrokenPipeError, ConnectionResetError):
                pass
            assert time.monotonic() - began < 5


def test_a_body_that_never_ends_is_refused_and_ends_the_connection(impatient):
    for origin, status in ((impatient, 408), (1, 403)):
        head = (
            f"PUT / HTTP/1.1\r\nHost: 127.0.0.1:{impatient}\r\nCookie: backtal-{impatient}=token\r\n"
            f"Origin: http://127.0.0.1:{origin}\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{{"
        )
        with socket.create_connection(("127.0.0.1", impatient), timeout=10) as connection:
            connection.sendall(head.encode())
            assert f" {status} ".encode() in b"".join(iter(lambda: connection.recv(1000), b""))


def test_the_token_comes_once_and_is_a_cookie_then(served):
    server, _, _ = served
    host = {"Host": f"127.0.0.1:{server.port}"}
    status, headers, content = send(server, "GET", f"/?token={server.token}", host, None)
    assert (status, headers["location"], content) == (303, "/", b"")
    assert headers["set-cookie"] == f"{server.cookie}; Path=/; HttpOnly; SameSite=Lax"
    assert server.token not in headers["location"]
    status, _, content = send(server, "GET", "/", host, None)
    assert status == 403
    assert "open the address" in json.loads(content)["error"]
    assert send(server, "GET", "/", host | {"Cookie": server.cookie}, None)[0] == 200


def test_a_link_from_another_site_opens_the_page_and_nothing_else(served):
    server, _, _ = served
    port = server.port
    good = {"Host": f"127.0.0.1:{port}", "Cookie": server.cookie}
    for site in ("cross-site", "same-site"):
        link = good | {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
        assert send(server, "GET", f"/?token={server.token}", link | {"Cookie": ""}, None)[0] == 303
        assert send(server, "GET", "/", link, None)[0] == 200
        for place in ("/api/videos", "/api/videos/a", "/film/a", "/frames/a/96/0", "/page/app.js"):
            assert send(server, "GET", place, link, None)[0] == 403, place
    change = good | {"Content-Type": "application/json"}
    for origin in ("http://evil.example", "null", "http://localhost:1", None):
        for method, place in (("PUT", "/api/videos/a"), ("POST", "/api/videos/a/time"), ("POST", "/")):
            assert send(server, method, place, change | {"Origin": origin}, b"{}")[0] == 403, (origin, method)


def test_a_browser_follows_a_link_from_another_site_and_from_the_file_it_is_started_with(served):
    server, _, _ = served
    sync_playwright = pytest.importorskip("playwright.sync_api").sync_playwright
    executable = chromium()
    link = f"<a href='{server.url}'>x</a>"
    with contextlib.ExitStack() as stack, sync_playwright() as play:
        browser = play.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        for start in ("http://mail.example/", _way_to(server.url, stack)):
            page = browser.new_context().new_page()
            page.route("http://mail.example/", lambda route: route.fulfill(body=link, content_type="text/html"))
            page.goto(start, wait_until="commit")
            if start.startswith("http:"):
                page.click("a")
            page.wait_for_url(f"http://127.0.0.1:{server.port}/**")
            page.wait_for_selector("#name:has-text('a')")
        browser.close()


def test_only_this_machine_is_listened_to(served):
    server, _, _ = served
    table = Path("/proc/net/tcp")
    if not table.exists():
        pytest.skip("no /proc/net/tcp on this system")
    listening = [line.split()[1] for line in table.read_text().splitlines()[1:] if line.split()[3] == "0A"]
    addresses = {address.split(":")[0] for address in listening if int(address.split(":")[1], 16) == server.port}
    assert addresses == {"0100007F"}


def test_parts_of_a_film(served):
    server, data, _ = served
    whole = (data / "videos" / "a.mp4").read_bytes()
    headers = {"Host": f"127.0.0.1:{server.port}", "Cookie": server.cookie, "Range": "bytes=100-199"}
    status, answered, content = send(server, "GET", "/film/a", headers, None)
    assert (status, content) == (206, whole[100:200])
    assert answered["content-range"] == f"bytes 100-199/{len(whole)}"
    assert send(server, "GET", "/film/a", headers | {"Range": "bytes=99999999-"}, None)[0] == 416
    assert server.ask("/film/b%20%C3%A9%2520%23%3F%26")[0] == 200
