// The whole video in one line: what the model thinks, clicks, suggestions, the part in view. Pointing at it goes there.

const HEIGHT = 34;

export class Overview {
  constructor(canvas, chosen) {
    this.canvas = canvas;
    const go = (event) => {
      if (!this.count || !(event.buttons & 1)) return;
      const box = canvas.getBoundingClientRect();
      const share = (event.clientX - box.left) / box.width;
      chosen(Math.min(Math.max(Math.round(share * this.count), 0), this.count - 1));
    };
    canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); go(event); });
    canvas.addEventListener("pointermove", go);
  }

  draw({ count, marks, suggestions, opinion, view, cursor }) {
    this.count = count;
    const { canvas } = this;
    const width = canvas.clientWidth;
    canvas.width = Math.round(width * devicePixelRatio);
    canvas.height = Math.round(HEIGHT * devicePixelRatio);
    const pen = canvas.getContext("2d");
    pen.scale(devicePixelRatio, devicePixelRatio);
    const style = getComputedStyle(canvas);
    const colour = (name) => style.getPropertyValue(name);
    const x = (frame) => (frame / count) * width;
    pen.fillStyle = colour("--sunken");
    pen.fillRect(0, 0, width, HEIGHT);
    if (opinion) {
      pen.fillStyle = colour("--curve-action");
      for (let at = 0; at < width; at += 1) {
        const from = Math.floor((at / width) * count);
        const to = Math.max(Math.floor(((at + 1) / width) * count), from + 1);
        let most = 0;
        for (let frame = from; frame < to && frame < opinion.background.length; frame += 1) {
          most = Math.max(most, 1 - opinion.background[frame]);
        }
        pen.fillRect(at, HEIGHT - 7 - most * (HEIGHT - 14), 1, most * (HEIGHT - 14));
      }
    }
    for (const { first, last, kind, met } of suggestions) {
      pen.fillStyle = colour(met ? "--line" : kind === "unsure" ? "--unsure" : "--between");
      pen.fillRect(x(first), HEIGHT - 6, Math.max(x(last + 1) - x(first), 3), 6);
    }
    for (const mark of marks) {
      pen.fillStyle = colour(mark.background ? "--background" : "--action");
      pen.fillRect(x(mark.frame) - 1, mark.background ? 0 : 6, 3, 12);
    }
    pen.strokeStyle = colour("--ink");
    pen.lineWidth = 1.5;
    pen.strokeRect(x(view[0]) + 1, 1, Math.max(x(view[1] + 1) - x(view[0]) - 2, 4), HEIGHT - 2);
    pen.fillStyle = colour("--cursor");
    pen.fillRect(x(cursor), 0, 2, HEIGHT);
  }
}
