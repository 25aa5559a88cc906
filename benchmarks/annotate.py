"""The click page on a video of two hours: how fast it opens and jumps, how smoothly it scrolls, what it holds.

`python benchmarks/annotate.py` makes the video (640 x 360, 25 frames/s, H.264 with a key frame every 250 frames; two
minutes of noise that moves, 60 times over), serves it, and drives Chromium, which has to be installed, over Playwright.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import av
import numpy as np
from playwright.sync_api import sync_playwright

FPS, PIECE = 25, 120
FILLED = """[...document.querySelectorAll('.cell')].length > 0 && (() => {
  const strip = document.getElementById('strip').getBoundingClientRect();
  return [...document.querySelectorAll('.cell')].every(cell => {
    const box = cell.getBoundingClientRect();
    return box.bottom < strip.top || box.top > strip.bottom || cell.style.backgroundImage;
  });
})()"""
SCROLL = """seconds => new Promise(done => {
  const strip = document.getElementById('strip');
  const times = [], begin = performance.now(), from = strip.scrollTop;
  let empty = 0, seen = 0;
  const step = now => {
    times.push(now);
    strip.scrollTop = from + (now - begin) * 1.0;
    const top = strip.getBoundingClientRect().top, low = strip.getBoundingClientRect().bottom;
    for (const cell of strip.querySelectorAll('.cell')) {
      const box = cell.getBoundingClientRect();
      if (box.bottom < top || box.top > low) continue;
      seen += 1;
      empty += !cell.style.backgroundImage;
    }
    if (now - begin < seconds * 1000) requestAnimationFrame(step);
    else done({ times, empty: empty / seen, pixels: strip.scrollTop - from });
  };
  requestAnimationFrame(step);
})"""


def make_video(path: Path, hours: float) -> None:
    """Encode `PIECE` seconds once and write their packets again and again."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (360, 900, 3), dtype=np.uint8)
    noise = np.repeat(np.repeat(noise[::20, ::20], 20, 0), 20, 1)
    piece = path.with_suffix(".piece.mp4")
    with av.open(str(piece), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"preset": "ultrafast", "g": "250", "bf": "2"})
        stream.width, stream.height, stream.pix_fmt = 640, 360, "yuv420p"
        for index in range(FPS * PIECE):
            left = index % 240
            image = noise[:, left : left + 640].copy()
            image[: 20 + index % 300, :30] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    with av.open(str(path), "w") as out:
        written = None
        for repeat in range(round(hours * 3600 / PIECE)):
            with av.open(str(piece)) as source:
                stream = source.streams.video[0]
                written = written or out.add_stream_from_template(stream)
                shift = round(repeat * PIECE / stream.time_base)
                for packet in source.demux(stream):
                    if packet.dts is None:
                        continue
                    packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, written
                    out.mux(packet)
    piece.unlink()


def memory(process: int, field: str) -> float:
    """MB of a process: VmRSS now, VmHWM at most."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    return int(found[1]) / 1024 if found else float("nan")


def start(folder: Path, log: Path) -> tuple[subprocess.Popen, str]:
    """A server, and the address of its page."""
    command = [sys.executable, "-m", "backtal", "annotate", str(folder), "--labels", str(folder / "labels.txt")]
    with log.open("w") as stderr:
        process = subprocess.Popen([*command, "--no-browser", "--port", "0"], stderr=stderr)
    while not (found := re.search(r"open (http\S+)", log.read_text())):
        if process.poll() is not None:
            raise SystemExit(log.read_text())
        time.sleep(0.02)
    return process, found[1]


def wait(page, expression: str) -> None:
    """Until a JavaScript expression holds; the page's policy forbids Playwright's own way."""
    while not page.evaluate(expression):
        time.sleep(0.01)


def main(hours: float, opens: int, jumps: int, seconds: float) -> None:
    """Measure, and print a JSON object."""
    browser_path = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser_path is None:
        raise SystemExit("no Chromium on this machine")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        root = Path(folder)
        (root / "labels.txt").write_text("jump\nrun\n")
        make_video(root / "long.mp4", hours)
        browser = driver.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        opening = []
        for turn in range(opens):
            process, address = start(root, root / "log.txt")
            before = memory(process.pid, "VmHWM")
            page = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
            begin = time.perf_counter()
            page.goto(address, wait_until="commit")
            wait(page, "document.querySelector('.cell') !== null")
            wait(page, FILLED)
            opening.append(time.perf_counter() - begin)
            if turn + 1 < opens:
                page.context.close()
                process.kill()
                process.wait()
        jumping = []
        frames = int(page.evaluate("document.querySelector('.cell').getAttribute('aria-setsize')"))
        for share in np.random.default_rng(1).uniform(0, 1, jumps):
            begin = time.perf_counter()
            page.evaluate(
                f"document.getElementById('strip').scrollTop = {share} * document.querySelector('.body').offsetHeight"
            )
            time.sleep(0.05)
            wait(page, FILLED)
            jumping.append(time.perf_counter() - begin)
        page.evaluate("document.getElementById('strip').scrollTop = 0")
        wait(page, FILLED)
        scrolled = page.evaluate(SCROLL, seconds)
        gaps = np.diff(scrolled["times"])
        cells = page.locator(".cell").count()
        for share in np.linspace(0, 1, 60):  # to fill what is kept, here and there
            page.evaluate(
                f"document.getElementById('strip').scrollTop = {share} * document.querySelector('.body').offsetHeight"
            )
            time.sleep(0.05)
            wait(page, FILLED)
        found = {
            "video": {"hours": hours, "MB": round((root / "long.mp4").stat().st_size / 2**20), "frames shown": frames},
            "opening, s": {"median": round(median(opening), 2), "longest": round(max(opening), 2), "times": opens},
            "jump until all is drawn, s": {"median": round(median(jumping), 2), "longest": round(max(jumping), 2)},
            "scrolling": {
                "seconds": seconds,
                "pixels per second": round(scrolled["pixels"] / seconds),
                "screen updates per second": round(1000 / float(gaps.mean()), 1),
                "99 % within, ms": round(float(np.percentile(gaps, 99)), 1),
                "longest, ms": round(float(gaps.max()), 1),
                "frames in view not drawn yet, %": round(100 * scrolled["empty"], 1),
            },
            "frames in the page at once": cells,
            "page, MB of JavaScript": round(page.evaluate("performance.memory.usedJSHeapSize") / 2**20, 1),
            "server, MB": {"before": round(before), "at most": round(memory(process.pid, "VmHWM"))},
        }
        browser.close()
        process.kill()
        process.wait()
        print(json.dumps(found, indent=1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=2)
    parser.add_argument("--opens", type=int, default=5, help="times that the page is opened, each on a new server")
    parser.add_argument("--jumps", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=20, help="of scrolling")
    arguments = parser.parse_args()
    main(arguments.hours, arguments.opens, arguments.jumps, arguments.seconds)
