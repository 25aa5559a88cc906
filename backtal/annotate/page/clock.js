// How long somebody works on each video. Time counts while the page is in front and the last key, pointer or scroll is no
// more than IDLE back, or the video plays.

import { TAB, ask } from "./saving.js";

const IDLE = 15_000;
const SEND = 10_000;

export class Clock {
  constructor(busy) {
    this.busy = busy;
    this.spent = new Map();
    this.sent = new Map();
    this.touched = performance.now();
    this.last = this.touched;
    this.told = this.last;
    for (const kind of ["keydown", "pointerdown", "pointermove", "wheel", "scroll"]) {
      addEventListener(kind, () => { this.touched = performance.now(); }, { capture: true, passive: true });
    }
    addEventListener("visibilitychange", () => { if (document.hidden) this.send(); });
    addEventListener("pagehide", () => this.send());
    setInterval(() => this.tick(), 500);
  }

  // Time goes to `key`, [annotator, video], from now on.
  on(key) {
    this.tick();
    this.send();
    this.key = key && JSON.stringify(key);
  }

  tick() {
    const now = performance.now();
    const passed = Math.min(now - this.last, 2000);
    this.last = now;
    const here = !document.hidden && document.hasFocus() && (now - this.touched < IDLE || this.busy());
    if (this.key && here) this.spent.set(this.key, this.seconds() + passed / 1000);
    if (now - this.told > SEND) this.send();
  }

  seconds() { return this.spent.get(this.key) || 0; }

  send() {
    this.told = performance.now();
    for (const [key, seconds] of this.spent) {
      if (seconds - (this.sent.get(key) || 0) < 0.05) continue; // the server keeps tenths
      const [annotator, video] = JSON.parse(key);
      const path = `/api/videos/${encodeURIComponent(video)}/time?annotator=${encodeURIComponent(annotator)}`;
      ask(path, { method: "POST", keepalive: true, body: JSON.stringify({ visit: TAB, seconds }) })
        .then((answer) => { if (answer.status === 200) this.sent.set(key, seconds); }, () => {});
    }
  }
}
