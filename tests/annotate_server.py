"""The page's server as a process, videos for it, and the browser."""

import http.client
import json
import os
import re
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from processes import command, start
from video_files import times_at, write_video

LABELS = ["jump", "run", "<i>wave</i>"]


def scene(number: int):
    """A picture whose colour tells the second: each half second has its own grey, on a hue of the video's."""

    def picture(time: float) -> np.ndarray:
        image = np.full((64, 96, 3), 40, np.uint8)
        image[..., number % 3] = 200
        image[:, : 2 + int(time * 2) % 94] = 250
        return image

    return picture


def make_videos(root: Path, names: dict[str, float]) -> Path:
    """A folder to annotate: videos of so many seconds, and the file of the labels."""
    (root / "videos").mkdir(parents=True)
    for number, (name, seconds) in enumerate(names.items()):
        codec = "mpeg4" if name.endswith(".avi") else "libx264"
        write_video(root / "videos" / name, times_at(8, seconds), scene(number), codec=codec)
    (root / "labels.txt").write_text("\n".join(LABELS) + "\n")
    return root


class Served:
    """A running `backtal annotate`."""

    def __init__(self, place: Path, *options: str, log: Path) -> None:
        self.log = log
        with log.open("w") as stderr:
            self.process = start(command, "annotate", place, "--no-browser", *options, stderr=stderr)
        deadline = time.monotonic() + 60
        while not (found := re.search(r"open (http://127\.0\.0\.1:(\d+)/\?token=(\S+))", log.read_text())):
            assert self.process.exitcode is None, log.read_text()
            assert time.monotonic() < deadline, "the server does not begin"
            time.sleep(0.05)
        self.url, self.port, self.token = found[1], int(found[2]), found[3]
        self.cookie = f"backtal-{self.port}={self.token}"

    def ask(self, path: str, content: object = None, *, method: str | None = None, **headers: str):
        """Status and content of an answer to the page itself."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        sent = {"Cookie": self.cookie} | headers
        body = None
        if content is not None:
            body = json.dumps(content)
            sent |= {"Content-Type": "application/json", "Origin": f"http://127.0.0.1:{self.port}"}
        connection.request(method or ("GET" if body is None else "PUT"), path, body, sent)
        answer = connection.getresponse()
        read = answer.read()
        connection.close()
        kind = answer.getheader("content-type") or ""
        return answer.status, json.loads(read) if "json" in kind else read

    def kill(self) -> None:
        """As `kill -9` does."""
        self.process.kill()
        self.process.join()

    def stop(self) -> str:
        """Ctrl-C; what it said on stderr."""
        if self.process.exitcode is None:
            os.kill(self.process.pid or 0, signal.SIGINT)
            self.process.join(20)
            if self.process.exitcode is None:
                self.kill()
                pytest.fail("the server did not stop on Ctrl-C")
        return self.log.read_text()


def chromium() -> str:
    """Debian's Chromium; skips the test where there is none."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("no chromium on this machine")
    return found
