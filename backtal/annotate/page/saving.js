// What is said of a video, and getting it saved: sent after every change, kept in the browser until the server has it, put on
// top of what others have changed in the meantime.

const RETRY = 2000;
const keyOf = (mark) => JSON.stringify([mark.time, mark.label]);
const markOf = (key) => { const [time, label] = JSON.parse(key); return { time, label }; };

export const TAB = crypto.randomUUID();

// Status and content of an answer. One that breaks off counts as none: status 0.
export async function ask(path, options = {}) {
  const response = await fetch(path, {
    ...options,
    headers: options.body ? { "content-type": "application/json" } : {},
  });
  try {
    return { status: response.status, content: await response.json() };
  } catch {
    return { status: 0, content: { error: "the server's answer broke off" } };
  }
}

function parse(content) {
  return {
    marks: new Set(content.marks.map(keyOf)),
    labels: new Set(content.labels),
    done: content.done,
    revision: content.revision,
  };
}

const plain = (state) => ({
  marks: [...state.marks].map(markOf),
  labels: [...state.labels],
  done: state.done,
  revision: state.revision,
});

const minus = (a, b) => [...a].filter((item) => !b.has(item));

function difference(from, to) {
  const diff = {
    add: minus(to.marks, from.marks),
    remove: minus(from.marks, to.marks),
    tick: minus(to.labels, from.labels),
    untick: minus(from.labels, to.labels),
  };
  if (from.done !== to.done) diff.done = to.done;
  return diff;
}

const size = (diff) => diff.add.length + diff.remove.length + diff.tick.length + diff.untick.length + ("done" in diff);

const inverse = (diff) => ({
  add: diff.remove,
  remove: diff.add,
  tick: diff.untick,
  untick: diff.tick,
  ...("done" in diff ? { done: !diff.done } : {}),
});

function apply(state, diff) {
  const next = { ...state, marks: new Set(state.marks), labels: new Set(state.labels) };
  diff.add.forEach((key) => next.marks.add(key));
  diff.remove.forEach((key) => next.marks.delete(key));
  diff.tick.forEach((label) => next.labels.add(label));
  diff.untick.forEach((label) => next.labels.delete(label));
  if ("done" in diff) next.done = diff.done;
  return next;
}

// The part of a difference that may come from what was sent without an answer: it may have arrived, whole or in part.
function ours(diff, sent) {
  return {
    add: diff.add.filter((key) => sent.some((state) => state.marks.has(key))),
    remove: diff.remove.filter((key) => sent.some((state) => !state.marks.has(key))),
    tick: diff.tick.filter((label) => sent.some((state) => state.labels.has(label))),
    untick: diff.untick.filter((label) => sent.some((state) => !state.labels.has(label))),
    ...(sent.some((state) => state.done === diff.done) ? { done: diff.done } : {}),
  };
}

// What was changed by somebody on the way from `base` to `wanted`, to be put on top of `theirs`.
function rebased(base, sent, wanted, theirs) {
  const origin = apply(base, ours(difference(base, theirs), sent));
  return { diff: difference(origin, wanted), elsewhere: size(difference(origin, theirs)) > 0 };
}

export class Annotation {
  // One video as one annotator sees it. `told` is called after every change with what it was about.
  constructor(dataset, annotator, content, told) {
    this.video = content.name;
    this.annotator = annotator;
    this.prefix = prefixOf(dataset, annotator);
    this.seconds = content.seconds; // of work, before this visit of the page
    this.base = parse(content);
    this.now = parse(content);
    this.undone = [];
    this.history = [];
    this.told = told;
    this.sending = false;
    this.sent = []; // on its way, or without an answer: nobody knows whether it arrived
    this.trouble = "";
  }

  get marks() { return [...this.now.marks].map(markOf).sort((a, b) => a.time - b.time); }
  get labels() { return this.now.labels; }
  get done() { return this.now.done; }

  // Changes that the server does not have, or has been sent although they were taken back since.
  get unsaved() {
    return size(difference(this.base, this.now)) || Math.max(0, ...this.sent.map((state) => size(difference(state, this.now))));
  }

  change({ add = [], remove = [], labels = this.now.labels, done = this.now.done }) {
    const wanted = { ...this.now, marks: new Set(this.now.marks), labels: new Set(labels), done };
    remove.forEach((mark) => wanted.marks.delete(keyOf(mark)));
    add.forEach((mark) => wanted.marks.add(keyOf(mark)));
    const diff = difference(this.now, wanted);
    if (!size(diff)) return;
    this.history.push(diff);
    this.undone = [];
    this.#become(apply(this.now, diff));
  }

  undo() { return this.#step(this.history, this.undone, inverse); }
  redo() { return this.#step(this.undone, this.history, (diff) => diff); }

  #step(from, to, turned) {
    const diff = from.pop();
    if (!diff) return null;
    to.push(diff);
    this.#become(apply(this.now, turned(diff)));
    const touched = [...diff.add, ...diff.remove].map(markOf);
    return touched.length ? touched[0].time : null;
  }

  // Changes that another visit of the page did not get through.
  absorb({ base, sent = [], now }) {
    const { diff } = rebased(parse(base), sent.map(parse), parse(now), this.now);
    this.#become(apply(this.now, diff));
    return size(diff);
  }

  // What the server holds by now, if that was changed elsewhere.
  refresh(content) {
    const theirs = parse(content);
    if (theirs.revision === this.base.revision || this.sending) return false;
    this.now = { ...apply(theirs, difference(this.base, this.now)), revision: theirs.revision };
    this.base = theirs;
    this.told("changed");
    this.send();
    return true;
  }

  #become(state) {
    this.now = state;
    this.#keep();
    this.told("changed");
    this.send();
  }

  #keep() {
    const key = `${this.prefix}${TAB}:${this.video}`;
    try {
      if (this.unsaved) {
        const entry = { video: this.video, base: plain(this.base), sent: this.sent.map(plain), now: plain(this.now) };
        localStorage.setItem(key, JSON.stringify(entry));
      } else {
        localStorage.removeItem(key);
      }
    } catch {
      this.trouble = "this browser keeps nothing: do not close the page before all is saved";
    }
  }

  async send() {
    if (this.sending) return;
    this.sending = true;
    try {
      while (this.unsaved) await this.#sendOnce();
      this.#keep();
    } finally {
      this.sending = false;
    }
  }

  async #sendOnce() {
    const anew = this.sent.at(-1) !== this.now;
    if (anew) this.sent.push(this.now);
    let answer;
    try {
      answer = await ask(`/api/videos/${encodeURIComponent(this.video)}?annotator=${encodeURIComponent(this.annotator)}`, {
        method: "PUT",
        body: JSON.stringify({ ...plain(this.now), base: this.base.revision }),
      });
    } catch {
      answer = { status: 0, content: { error: "the server does not answer: was it stopped? Start `backtal annotate` again" } };
    }
    const { status, content } = answer;
    // Refused: nothing was written. After an error of the disk half of it may have been.
    if (anew && status >= 400 && status < 500) this.sent.pop();
    if (status === 200) {
      this.base = parse(content);
      this.now = { ...this.now, revision: this.base.revision };
      this.sent = [];
      this.trouble = "";
      this.#keep();
      this.told("saved");
    } else if (status === 409) {
      const theirs = parse(content);
      const { diff, elsewhere } = rebased(this.base, this.sent, this.now, theirs);
      this.now = { ...apply(theirs, diff), revision: theirs.revision };
      this.base = theirs;
      this.sent = [];
      this.trouble = "";
      this.#keep();
      this.told(elsewhere ? "merged" : "changed");
    } else {
      this.trouble = content.error || `the server answers ${status}`;
      this.told("trouble");
      await new Promise((wake) => setTimeout(wake, RETRY));
    }
  }
}

const prefixOf = (dataset, annotator) => `backtal:${dataset}:${annotator}:`;

// Changes that other visits of this page have left in the browser, of all annotators: [[key, annotator, entry], ...].
export function leftBehind(dataset) {
  const found = [];
  try {
    for (const key of Object.keys(localStorage)) {
      const [, id, annotator, tab] = key.split(":");
      if (!key.startsWith("backtal:") || id !== dataset || tab === TAB) continue;
      const entry = JSON.parse(localStorage.getItem(key));
      if (entry && entry.base && entry.now) found.push([key, annotator, entry]);
    }
  } catch { /* nothing is kept here, or it is not ours */ }
  return found;
}
