// The strip: frames in lines, of which only those in view exist; their pictures come in sheets of several.

const WIDTHS = [64, 88, 120, 160, 216, 300, 420];
const GUTTER = 52;
const CURVE = 26;
const SPARE = 2;
const AT_ONCE = 2; // one is decoded, one waits: more would come in any order, and decoding goes forwards best
const KEPT = 90;

export const clock = (seconds, digits = 1) => {
  const whole = Math.floor(seconds / 60);
  const scale = 10 ** digits;
  const rest = (Math.floor((seconds - 60 * whole) * scale + 1e-6) / scale).toFixed(digits).padStart(digits ? 3 + digits : 2, "0");
  return whole < 60 ? `${whole}:${rest}` : `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}:${rest}`;
};

const make = (tag, name, text = "") => {
  const element = document.createElement(tag);
  element.className = name;
  element.textContent = text;
  return element;
};

export class Strip {
  constructor(root, { toggled, moved, scrolled }) {
    Object.assign(this, { root, toggled, moved, scrolled });
    this.zoom = Number(localStorage.getItem("backtal:zoom") ?? 3);
    this.rows = new Map();
    this.sheets = new Map();
    this.loading = new Map();
    this.marks = new Map();
    this.suggested = new Map();
    this.cursor = 0;
    this.body = make("div", "body");
    this.body.setAttribute("role", "presentation");
    root.append(this.body);
    root.addEventListener("scroll", () => this.#soon(), { passive: true });
    root.addEventListener("click", (event) => {
      const cell = event.target.closest(".cell");
      if (!cell) return;
      this.move(Number(cell.dataset.frame), false);
      toggled(this.cursor);
    });
    new ResizeObserver(() => this.info && this.layout()).observe(root);
  }

  open(info) {
    this.close();
    this.info = info;
    this.opinion = null;
    this.cursor = 0;
    this.root.scrollTop = 0;
    this.layout();
  }

  close() {
    this.info = null;
    for (const controller of this.loading.values()) controller.abort();
    for (const sheet of this.sheets.values()) if (sheet.url) URL.revokeObjectURL(sheet.url);
    this.loading.clear();
    this.sheets.clear();
    this.marks = new Map();
    this.suggested = new Map();
    this.#clear();
  }

  #clear() {
    for (const row of this.rows.values()) row.remove();
    this.rows.clear();
  }

  // Sizes, from the window and the zoom; the frame on top stays there.
  layout() {
    const top = this.#firstVisible();
    const room = Math.max(this.root.clientWidth - GUTTER - 4, 60);
    this.perRow = Math.max(Math.round(room / WIDTHS[this.zoom]), 1);
    this.cellWidth = room / this.perRow;
    const aspect = Math.min(Math.max(this.info.aspect, 0.25), 4);
    this.cellHeight = Math.round(this.cellWidth / aspect);
    this.rowHeight = this.cellHeight + (this.opinion ? CURVE : 0) + 6;
    const height = this.cellHeight * devicePixelRatio > 130 ? this.info.heights[1] : this.info.heights[0];
    if (height !== this.height) {
      this.height = height;
      for (const sheet of this.sheets.values()) if (sheet.url) URL.revokeObjectURL(sheet.url);
      this.sheets.clear();
    }
    this.body.style.height = `${Math.ceil(this.info.count / this.perRow) * this.rowHeight}px`;
    this.#clear();
    this.root.scrollTop = Math.floor(top / this.perRow) * this.rowHeight;
    this.draw();
    this.scrolled();
  }

  #firstVisible() { return this.rowHeight ? Math.floor((this.root.scrollTop + 1) / this.rowHeight) * this.perRow : 0; }

  // First and last frame in view.
  view() {
    const last = Math.ceil((this.root.scrollTop + this.root.clientHeight) / this.rowHeight) * this.perRow - 1;
    return [this.#firstVisible(), Math.min(last, this.info.count - 1)];
  }

  rescale(step) {
    const zoom = Math.min(Math.max(this.zoom + step, 0), WIDTHS.length - 1);
    if (zoom === this.zoom) return;
    this.zoom = zoom;
    try { localStorage.setItem("backtal:zoom", zoom); } catch { /* only a convenience */ }
    this.layout();
    this.reveal(this.cursor);
  }

  show({ marks, suggested, opinion }) {
    if (marks) this.marks = marks;
    if (suggested) this.suggested = suggested;
    if (opinion !== undefined && opinion !== this.opinion) {
      this.opinion = opinion;
      this.layout();
      return;
    }
    for (const row of this.rows.values()) for (const cell of row.querySelectorAll(".cell")) this.#dress(cell);
  }

  move(frame, reveal = true) {
    const next = Math.min(Math.max(frame, 0), this.info.count - 1);
    const before = this.cursor;
    this.cursor = next;
    if (reveal) this.reveal(next);
    for (const at of [before, next]) {
      const cell = document.getElementById(`f${at}`);
      if (cell) this.#dress(cell);
    }
    this.root.setAttribute("aria-activedescendant", `f${next}`);
    this.moved(next);
  }

  reveal(frame) {
    const top = Math.floor(frame / this.perRow) * this.rowHeight;
    if (top < this.root.scrollTop) this.root.scrollTop = top;
    const low = top + this.rowHeight - this.root.clientHeight;
    if (low > this.root.scrollTop) this.root.scrollTop = low;
    this.draw();
  }

  // Puts a frame's line a third below the upper edge.
  centre(frame) {
    this.root.scrollTop = Math.floor(frame / this.perRow) * this.rowHeight - this.root.clientHeight / 3;
    this.draw();
  }

  page(direction) {
    const lines = Math.max(Math.floor(this.root.clientHeight / this.rowHeight), 1);
    this.root.scrollTop += direction * lines * this.rowHeight;
    this.move(this.cursor + direction * lines * this.perRow);
  }

  #soon() {
    if (this.waiting || !this.info) return;
    this.waiting = requestAnimationFrame(() => { this.waiting = 0; if (this.info) { this.draw(); this.scrolled(); } });
  }

  draw() {
    const total = Math.ceil(this.info.count / this.perRow);
    const first = Math.floor(this.root.scrollTop / this.rowHeight);
    const last = Math.floor((this.root.scrollTop + this.root.clientHeight) / this.rowHeight);
    const from = Math.max(first - SPARE, 0);
    const to = Math.min(last + SPARE, total - 1);
    for (const [index, row] of this.rows) if (index < from || index > to) { row.remove(); this.rows.delete(index); }
    for (let index = from; index <= to; index += 1) if (!this.rows.has(index)) this.#row(index);
    this.root.setAttribute("aria-activedescendant", `f${this.cursor}`);
    const sheetOf = (row) => Math.floor((Math.min(Math.max(row, 0), total - 1) * this.perRow) / this.info.sheet);
    const wanted = new Set();
    for (let sheet = sheetOf(first); sheet * this.info.sheet < (last + 1) * this.perRow; sheet += 1) wanted.add(sheet);
    for (let sheet = sheetOf(from); sheet * this.info.sheet < (to + 1) * this.perRow; sheet += 1) wanted.add(sheet);
    this.wanted = [...wanted].filter((sheet) => sheet * this.info.sheet < this.info.count);
    this.#load();
  }

  #row(index) {
    const row = make("div", "row");
    row.setAttribute("role", "presentation");
    row.style.transform = `translateY(${index * this.rowHeight}px)`;
    const first = index * this.perRow;
    const time = make("span", "time", clock(first / this.info.rate, 0));
    time.setAttribute("aria-hidden", "true");
    row.append(time);
    const last = Math.min(first + this.perRow, this.info.count);
    for (let frame = first; frame < last; frame += 1) {
      const cell = make("div", "cell");
      cell.id = `f${frame}`;
      cell.dataset.frame = frame;
      cell.setAttribute("role", "option");
      cell.setAttribute("aria-posinset", frame + 1);
      cell.setAttribute("aria-setsize", this.info.count);
      cell.style.width = `${this.cellWidth}px`;
      cell.style.height = `${this.cellHeight}px`;
      this.#dress(cell);
      this.#picture(cell);
      row.append(cell);
    }
    if (this.opinion) row.append(this.#curve(first, last));
    this.rows.set(index, row);
    this.body.append(row);
  }

  // The looks of a frame that depend on clicks, suggestions and cursor.
  #dress(cell) {
    const frame = Number(cell.dataset.frame);
    const marks = this.marks.get(frame) || [];
    const suggestion = this.suggested.get(frame);
    cell.classList.toggle("background", marks.some((mark) => mark.background));
    cell.classList.toggle("action", marks.some((mark) => !mark.background));
    cell.classList.toggle("cursor", frame === this.cursor);
    cell.classList.toggle("unsure", suggestion === "unsure");
    cell.classList.toggle("between", suggestion === "between");
    const says = marks.map((mark) => (mark.background ? "background" : mark.label)).join(", ");
    cell.setAttribute("aria-selected", marks.length > 0);
    const hint = suggestion ? ", suggested" : "";
    cell.setAttribute("aria-label", `${clock(frame / this.info.rate)}${says && `, click: ${says}`}${hint}`);
    cell.replaceChildren(...(says ? [make("span", "badge", says)] : []));
    if (frame === this.cursor) cell.append(make("span", "second", clock(frame / this.info.rate)));
  }

  #picture(cell) {
    const frame = Number(cell.dataset.frame);
    const sheet = this.sheets.get(Math.floor(frame / this.info.sheet));
    cell.classList.toggle("failed", Boolean(sheet && sheet.error));
    if (sheet && sheet.error) cell.title = sheet.error;
    if (!sheet || !sheet.url) return;
    const place = frame % this.info.sheet;
    cell.style.backgroundImage = `url(${sheet.url})`;
    cell.style.backgroundSize = `${sheet.frames * 100}% 100%`;
    cell.style.backgroundPosition = `${sheet.frames > 1 ? (100 * place) / (sheet.frames - 1) : 0}% 0`;
  }

  #load() {
    for (const [sheet, controller] of this.loading) if (!this.wanted.includes(sheet)) controller.abort();
    for (const sheet of this.wanted) {
      if (this.loading.size >= AT_ONCE) return;
      const kept = this.sheets.get(sheet);
      if (kept) { this.sheets.delete(sheet); this.sheets.set(sheet, kept); continue; }
      if (!this.loading.has(sheet)) this.#fetch(sheet);
    }
  }

  async #fetch(sheet) {
    const { info, height } = this;
    const controller = new AbortController();
    this.loading.set(sheet, controller);
    let found = null;
    try {
      const path = `/frames/${encodeURIComponent(info.name)}/${height}/${sheet}`;
      const response = await fetch(path, { signal: controller.signal });
      if (response.ok) {
        found = { url: URL.createObjectURL(await response.blob()) };
      } else if (response.status === 422) {
        found = { error: (await response.json()).error };
      }
    } catch { /* no longer wanted, or the server is away: asked for again when next in view */ }
    if (info !== this.info) { if (found && found.url) URL.revokeObjectURL(found.url); return; }
    if (this.loading.get(sheet) === controller) this.loading.delete(sheet);
    if (found && height === this.height) {
      found.frames = Math.min(info.sheet, info.count - sheet * info.sheet);
      this.sheets.set(sheet, found);
      for (const [old, entry] of this.sheets) {
        if (this.sheets.size <= KEPT) break;
        if (this.wanted.includes(old)) continue;
        if (entry.url) URL.revokeObjectURL(entry.url);
        this.sheets.delete(old);
      }
      for (const row of this.rows.values()) for (const cell of row.querySelectorAll(".cell")) {
        if (Math.floor(Number(cell.dataset.frame) / info.sheet) === sheet) this.#picture(cell);
      }
    } else if (!controller.signal.aborted) {
      setTimeout(() => this.info === info && this.#load(), 2000);
      return;
    }
    this.#load();
  }

  // What the model makes of these frames: background as an area, the strongest action as a line, named where it changes.
  #curve(first, last) {
    const canvas = make("canvas", "curve");
    const width = this.cellWidth * (last - first);
    canvas.style.width = `${width}px`;
    canvas.style.height = `${CURVE}px`;
    canvas.style.left = `${GUTTER}px`;
    canvas.style.top = `${this.cellHeight}px`;
    canvas.width = Math.round(width * devicePixelRatio);
    canvas.height = Math.round(CURVE * devicePixelRatio);
    canvas.setAttribute("aria-hidden", "true");
    const pen = canvas.getContext("2d");
    const style = getComputedStyle(this.root);
    pen.scale(devicePixelRatio, devicePixelRatio);
    const { background, strongest, which, labels } = this.opinion;
    const x = (frame) => (frame - first + 0.5) * this.cellWidth;
    const y = (value) => CURVE - 2 - value * (CURVE - 5);
    const end = Math.min(last, background.length);
    pen.fillStyle = style.getPropertyValue("--curve-background");
    pen.beginPath();
    pen.moveTo(0, CURVE - 2);
    for (let frame = first - 1; frame <= end; frame += 1) {
      const at = Math.min(Math.max(frame, 0), background.length - 1);
      pen.lineTo(x(frame), y(background[at]));
    }
    pen.lineTo(x(end), CURVE - 2);
    pen.fill();
    pen.strokeStyle = style.getPropertyValue("--curve-action");
    pen.lineWidth = 2;
    pen.beginPath();
    for (let frame = first - 1; frame <= end; frame += 1) {
      const at = Math.min(Math.max(frame, 0), background.length - 1);
      if (frame === first - 1) pen.moveTo(x(frame), y(strongest[at])); else pen.lineTo(x(frame), y(strongest[at]));
    }
    pen.stroke();
    pen.fillStyle = style.getPropertyValue("--ink");
    pen.font = "11px system-ui, sans-serif";
    for (let frame = first; frame < end; frame += 1) {
      const said = frame > first && which[frame] === which[frame - 1] && strongest[frame - 1] >= 0.5;
      if (strongest[frame] >= 0.5 && !said) pen.fillText(labels[which[frame]], x(frame) + 3, CURVE - 6);
    }
    return canvas;
  }
}
