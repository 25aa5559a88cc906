"""Streams made on the spot and fed in real time: over TCP, HTTP, UDP or HLS, cut off by a test, or through a pipe."""

import contextlib
import socket
import sys
import threading
import time
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import numpy as np
import torch

from backtal import BackTALModel, FeatureSpec, LocalizationConfig, ModelConfig
from backtal.video import Extractor

FPS = 25
SPEC = FeatureSpec("light", fps=10, window=2, stride=2, dim=2)  # a snippet is 0.2 s

MINE = """
import torch
from backtal import FeatureSpec
from backtal.video import Extractor

class Light(torch.nn.Module):
    def forward(self, rgb):
        bright = rgb.float().mean(dim=(1, 2, 3, 4)) / 255
        return torch.stack([bright, 1 - bright], dim=1)

def build(name, options):
    return Extractor(FeatureSpec("light", fps=10, window=2, stride=2, dim=2), Light(), 32, 32)
"""


def light_extractor() -> Extractor:
    """How bright and how dark a window is."""
    space: dict = {}
    exec(MINE, space)
    return space["build"]("light", None)


def light_model() -> BackTALModel:
    """Finds a `flash` where it is bright; looks at one snippet at a time."""
    config = ModelConfig(
        feature_dim=2, labels=("flash",), hidden_dim=2, num_layers=1, kernel_size=1, filter_dim=2, embedding_dim=2,
        affinity=False, feature_spec=SPEC,
    )  # fmt: skip
    settings = LocalizationConfig(thresholds=(0.5, 0.6, 0.1), gamma=0.0, soft_nms_sigma=0.3, min_score=0.1)
    model = BackTALModel(config, settings).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.trunk[0].weight[:, :, 0] = torch.eye(2)
        model.classifier.weight[:, :, 0] = 40 * torch.eye(2)
    return model


def shown(flashes: list[tuple[float, float]], time: float) -> np.ndarray:
    """The picture at a second: white within the flashes, else dark."""
    bright = any(start <= time + 1e-6 < end for start, end in flashes)
    return np.full((64, 96, 3), 250 if bright else 15, np.uint8)


class _Writes:
    """What PyAV writes to."""

    def __init__(self, send: Callable[[bytes], object]) -> None:
        self.write = send


def feed(
    send: Callable[[bytes], object],
    flashes: list[tuple[float, float]],
    start: float,
    end: float,
    *,
    began: float | None,
    form: str = "mpegts",
    clock: float = 0.0,
) -> None:
    """Send seconds `start` to `end` of a stream, each frame when it is due; `began` None sends as fast as it goes.

    Timestamps are those of the stream, less `clock`.
    """
    with av.open(_Writes(send), "w", format=form, options={"flush_packets": "1"}) as container:
        fill(container, flashes, start, end, began=began, clock=clock)


def fill(
    container, flashes: list[tuple[float, float]], start: float, end: float, *, began: float | None, clock: float
) -> None:
    """Encode seconds `start` to `end` of a stream into a container, as `feed` sends them."""
    options = {"g": "5", "preset": "ultrafast", "tune": "zerolatency", "bf": "0"}
    stream = container.add_stream("libx264", rate=FPS, options=options)
    stream.height, stream.width, stream.pix_fmt = 64, 96, "yuv420p"
    for index in range(round(start * FPS), round(end * FPS)):
        if began is not None:
            time.sleep(max(began + index / FPS - time.time(), 0))
        frame = av.VideoFrame.from_ndarray(shown(flashes, index / FPS), format="rgb24")
        frame.pts, frame.time_base = index - round(clock * FPS), Fraction(1, FPS)
        container.mux(stream.encode(frame))
    container.mux(stream.encode())


class Server:
    """Serves one client after the other on loopback, seconds of one stream at a time, and cuts it off in between.

    Args:
        parts: start and end of each connection, in seconds of the stream.
        flashes: when it is bright.
        http: whether to answer as an HTTP server does.
        restarts: whether the timestamps of each connection begin at 0.
    """

    def __init__(
        self, parts: list[tuple[float, float]], flashes: list[tuple[float, float]], *, http: bool, restarts: bool
    ) -> None:
        self._parts, self._flashes, self._http, self._restarts = parts, flashes, http, restarts
        self._socket = socket.create_server(("127.0.0.1", 0))
        kind = "http" if http else "tcp"
        self.address = f"{kind}://127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        began = None
        for start, end in self._parts:
            client, _ = self._socket.accept()
            began = began or time.time() - start
            with client:
                if self._http:
                    client.recv(4096)
                    client.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: video/mp2t\r\nConnection: close\r\n\r\n")
                late = max(start, time.time() - began)  # what came while nobody listened is lost
                late = round(late * 5) / 5  # at a key frame
                with contextlib.suppress(Exception):  # whatever PyAV makes of a client that left
                    feed(client.sendall, self._flashes, late, end, began=began, clock=late if self._restarts else 0.0)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self._socket.close()


def send_udp(port: int, parts: list[tuple[float, float]], flashes: list[tuple[float, float]]) -> threading.Thread:
    """Send parts of a stream to a port on loopback, in real time; the timestamps of each begin at 0."""

    def work() -> None:
        time.sleep(0.5)  # until somebody listens
        began = time.time()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:

            def send(content: bytes) -> None:
                for place in range(0, len(content), 1316):  # seven packets of MPEG-TS
                    out.sendto(content[place : place + 1316], ("127.0.0.1", port))

            for start, end in parts:
                time.sleep(max(began + start - time.time(), 0))
                feed(send, flashes, start, end, began=began, clock=start)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


class Playlist:
    """A live playlist (HLS) of segments of one second, the last five, on loopback.

    Args:
        folder: to write to.
        seconds: after which it is complete.
        flashes: when it is bright.
    """

    def __init__(self, folder: Path, seconds: float, flashes: list[tuple[float, float]]) -> None:
        self._place, self._seconds, self._flashes = folder / "live.m3u8", seconds, flashes
        self.down = down = threading.Event()

        class Handler(SimpleHTTPRequestHandler):
            def do_GET(self) -> None:
                if down.is_set():
                    self.send_error(503)
                else:
                    super().do_GET()

            def log_message(self, format, *args) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
        self.address = f"http://127.0.0.1:{server.server_port}/live.m3u8"
        self.began = time.time()
        for work in (server.serve_forever, self._write):
            threading.Thread(target=work, daemon=True).start()
        while not self._place.exists():
            time.sleep(0.05)

    def _write(self) -> None:
        options = {"hls_time": "1", "hls_list_size": "5", "hls_flags": "delete_segments"}
        with av.open(str(self._place), "w", format="hls", options=options) as container:
            fill(container, self._flashes, 0.0, self._seconds, began=self.began, clock=0.0)


if __name__ == "__main__":  # python live_streams.py FORM SECONDS: a stream on standard output, in real time
    feed(
        sys.stdout.buffer.write, [(1.0, 2.0), (3.4, 4.4)], 0.0, float(sys.argv[2]), began=time.time(), form=sys.argv[1]
    )
