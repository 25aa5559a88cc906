// The page: wires the strip, the overview, saving, the clock, the list of videos and the keyboard together.

import { Clock } from "./clock.js";
import { Overview } from "./overview.js";
import { Annotation, ask, leftBehind } from "./saving.js";
import { Strip, clock } from "./strip.js";

const PAPER = 48; // seconds of work per minute of video (section 4.2)
const NEAR = 3000;

const $ = (id) => document.getElementById(id);
const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};
const plural = (count, name) => `${count} ${name}${count === 1 ? "" : "s"}`;
const channel = "BroadcastChannel" in window ? new BroadcastChannel("backtal") : null;

const state = {
  all: null, // the dataset: labels, videos, annotators
  info: null, // the video on the page
  annotation: null,
  advice: null,
  action: null, // the label that clicks give, null for background
  turn: 0, // counts what was asked to be opened: only the last of it comes on the page
  opening: false, // until it does, the video still on the page takes no click and no labels
  asked: null, // whose labels the dialog asks for, and those that were ticked when it opened
};
const annotations = new Map();

// ---- where we are, in the address

const address = () => Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
function remember() {
  if (!state.info) return;
  const place = { who: state.all.annotator, video: state.info.name, t: strip.cursor / state.info.rate };
  history.replaceState(null, "", `#${new URLSearchParams(place)}`);
}
const path = (video, rest = "", annotator = state.all.annotator) =>
  `/api/videos/${encodeURIComponent(video)}${rest}?annotator=${encodeURIComponent(annotator)}`;

// What the server answers, where that is no error.
async function get(address) {
  const { status, content } = await ask(address);
  if (status !== 200) throw Object.assign(new Error(content.error || `the server answers ${status}`), { status });
  return content;
}

// ---- notices and status

function notice(text, kind = "note", lasting = false) {
  const same = [...$("notices").children].find((item) => item.dataset.text === text);
  if (same) return;
  const item = make("div", { className: `notice ${kind}` }, make("span", { textContent: text }));
  item.dataset.text = text;
  const close = make("button", { type: "button", textContent: "×", ariaLabel: "Close the notice" });
  close.addEventListener("click", () => item.remove());
  item.append(close);
  $("notices").append(item);
  if (!lasting) setTimeout(() => item.remove(), 12_000);
}

function showSaved() {
  const waiting = [...annotations.values()].filter((annotation) => annotation.unsaved);
  const trouble = waiting.find((annotation) => annotation.trouble);
  const count = waiting.reduce((sum, annotation) => sum + annotation.unsaved, 0);
  $("saved").className = trouble ? "bad" : "";
  $("saved").textContent = !count ? "all saved" : trouble ? `${plural(count, "change")} not saved` : "saving…";
  const old = $("notices").querySelector(".unsaved");
  const text = trouble && `Not saved yet, kept in this browser and tried again: ${trouble.trouble}.`;
  if (old && old.dataset.text !== text) old.remove();
  if (text) notice(text, "bad unsaved", true);
}

// ---- a video

function told(annotation, what) {
  if (what === "merged") {
    notice(`${annotation.video} was changed elsewhere, in another tab say. That was loaded, and your changes were put on top.`);
  }
  if (what === "saved" && channel) channel.postMessage({ id: state.all.id, video: annotation.video });
  if (what === "saved") summarize(annotation);
  showSaved();
  if (annotation === state.annotation) show();
}

async function annotationOf(video, annotator = state.all.annotator) {
  const info = await get(path(video, "", annotator));
  const key = JSON.stringify([annotator, video]);
  let annotation = annotations.get(key);
  if (annotation) {
    annotation.refresh(info);
  } else {
    annotation = new Annotation(state.all.id, annotator, info, (what) => told(annotation, what));
    annotations.set(key, annotation);
  }
  return { annotation, info };
}

// Whether that is all: false where the file cannot be read.
async function open(video, second = 0) {
  film.pause();
  state.turn += 1;
  const { turn } = state;
  state.opening = true;
  let opened;
  try {
    opened = await annotationOf(video);
  } catch (failure) {
    if (turn === state.turn) state.opening = false;
    notice(`${video}: ${failure.message}`, "bad");
    return turn !== state.turn || !(failure.status === 422 || failure.status >= 500);
  }
  if (turn !== state.turn) return true;
  state.opening = false;
  state.info = opened.info;
  state.annotation = opened.annotation;
  state.advice = null;
  $("name").textContent = video;
  document.title = `${video} · backtal annotate`;
  for (const tool of $("tools").querySelectorAll("button, select")) tool.disabled = false;
  strip.open(opened.info);
  $("later").disabled = $("earlier").disabled = true;
  setFilm();
  show();
  strip.move(Math.round(second * opened.info.rate), false);
  remember(); // at once: the page may be loaded again before the cursor rests
  if (second) strip.centre(strip.cursor);
  timer.on([state.all.annotator, video]);
  listVideos();
  strip.root.focus({ preventScroll: true });
  if (state.all.advised) advise(opened.info);
  return true;
}

// The first of these videos that can be read.
async function openOne(videos) {
  for (const video of videos) if (await open(video.name)) return;
}

function framesOf(annotation) {
  const frames = new Map();
  for (const mark of annotation.marks) {
    // A click counts for the frame on display, also if other software put it between two.
    const frame = Math.min(Math.floor(mark.time * state.info.rate + 1e-6), state.info.count - 1);
    if (!frames.has(frame)) frames.set(frame, []);
    frames.get(frame).push({ ...mark, background: mark.label === state.all.background });
  }
  return frames;
}

function show() {
  const { annotation, info } = state;
  if (!annotation) return;
  const marks = framesOf(annotation);
  strip.show({ marks, suggested: suggestedFrames(marks) });
  $("undo").disabled = !annotation.history.length;
  $("redo").disabled = !annotation.undone.length;
  const clicks = annotation.marks;
  const background = clicks.filter((mark) => mark.label === state.all.background).length;
  const actions = clicks.length - background;
  const labels = [...info.given, ...annotation.labels];
  $("counts").textContent = [
    clicks.length ? `${plural(background, "background click")}${actions ? `, ${plural(actions, "action click")}` : ""}`
      : "click one frame in every stretch that shows none of the actions",
    labels.length ? labels.join(", ") : "no label ticked",
    ...(annotation.done ? ["done"] : []),
  ].join(" · ");
  sayWhere();
  drawOverview();
}

function toggle(frame) {
  if (state.opening || state.asked) return;
  const here = framesOf(state.annotation).get(frame) || [];
  const second = frame / state.info.rate;
  if (here.length) {
    state.annotation.change({ remove: here.map(({ time, label }) => ({ time, label })) });
    return;
  }
  const label = state.action ?? state.all.background;
  const labels = new Set(state.annotation.labels);
  if (state.action !== null && !state.info.given.includes(label)) labels.add(label);
  state.annotation.change({ add: [{ time: second, label }], labels });
}

function sayWhere() {
  const { info, advice } = state;
  if (!info) return;
  const frame = strip.cursor;
  const parts = [`${clock(frame / info.rate)} of ${clock(info.duration)}`];
  if (advice && frame < advice.background.length) {
    const [strongest, background] = [advice.strongest[frame], advice.background[frame]];
    parts.push(`model: ${advice.labels[advice.which[frame]]} ${strongest.toFixed(2)}, background ${background.toFixed(2)}`);
  }
  $("cursor").textContent = parts.join(" · ");
}

function drawOverview() {
  if (!state.info) return;
  const marks = [];
  strip.marks.forEach((list, frame) => list.forEach((mark) => marks.push({ frame, background: mark.background })));
  overview.draw({
    count: state.info.count, marks, suggestions: suggestions(strip.marks), opinion: state.advice, view: strip.view(),
    cursor: strip.cursor,
  });
}

// ---- suggestions

async function advise(info) {
  const answer = await ask(path(info.name, "/suggestions")).catch(() => ({ status: 0, content: {} }));
  if (state.info !== info) return;
  if (answer.status === 202 || answer.status === 0) { setTimeout(() => advise(info), 1500); return; }
  if (answer.status !== 200) { notice(`No suggestions: ${answer.content.error}`, "bad"); return; }
  state.advice = answer.content;
  $("later").disabled = $("earlier").disabled = !answer.content.suggestions.length;
  strip.show({ opinion: answer.content });
  show();
  load().catch(() => {});
}

// The suggestions, each with whether a click has met it.
function suggestions(marks) {
  if (!state.advice) return [];
  const clicked = [...marks.keys()];
  return state.advice.suggestions.map((item) => ({
    ...item, met: clicked.some((frame) => item.first <= frame && frame <= item.last),
  }));
}

function suggestedFrames(marks) {
  const frames = new Map();
  for (const { first, last, kind, met } of suggestions(marks)) {
    if (!met) for (let frame = first; frame <= last; frame += 1) frames.set(frame, kind);
  }
  return frames;
}

function goToSuggestion(direction) {
  const open = suggestions(strip.marks).filter((item) => !item.met);
  const places = open.map((item) => Math.floor((item.first + item.last) / 2)).sort((a, b) => a - b);
  goAmong(places, direction, state.advice ? "no suggestion is left in this video" : "there are no suggestions");
}

function goAmong(frames, direction, otherwise) {
  const next = direction > 0 ? frames.find((frame) => frame > strip.cursor) ?? frames[0]
    : frames.findLast((frame) => frame < strip.cursor) ?? frames.at(-1);
  if (next === undefined) { notice(otherwise); return; }
  strip.move(next, false);
  strip.centre(next);
}

// ---- the list of videos

async function load(again = false) {
  const who = state.all?.annotator ?? address().who;
  state.all = await get(`/api/videos${who ? `?annotator=${encodeURIComponent(who)}` : ""}`);
  $("dataset").textContent = state.all.dataset;
  $("suggesting").hidden = !state.all.advised;
  $("who").replaceChildren(
    ...state.all.annotators.map((name) => make("option", { textContent: name, value: name })),
    make("option", { textContent: "someone else…", value: "" }),
  );
  $("who").value = state.all.annotator;
  listVideos();
  // The server reads the files one after the other. Where that gets no further one may be broken: asked ever less often.
  const unread = state.all.videos.filter((video) => !video.duration).length;
  if (unread !== state.unread) state.pause = NEAR; else if (again) state.pause = Math.min(2 * state.pause, 60_000);
  state.unread = unread;
  clearTimeout(state.reading);
  if (unread) state.reading = setTimeout(() => load(true).catch(() => {}), state.pause);
}

// Unfinished ones first where a model says which teach most.
function ordered() {
  const videos = [...state.all.videos];
  if (!state.all.advised) return videos;
  return videos.sort((a, b) => a.done - b.done || (b.worth ?? -1) - (a.worth ?? -1));
}

function summarize(annotation) {
  const entry = state.all.videos.find((video) => video.name === annotation.video);
  if (!entry || annotation.annotator !== state.all.annotator) return;
  Object.assign(entry, { marks: annotation.marks.length, done: annotation.done, labels: annotation.labels.size });
  listVideos();
}

function listVideos() {
  const focused = document.activeElement?.dataset?.video;
  $("videos").replaceChildren(...ordered().map((video) => {
    const status = video.done ? "done" : video.marks || video.labels ? "begun" : "new";
    const button = make("button", { type: "button", className: status },
      make("span", { className: "state", textContent: { done: "✓", begun: "…", new: "" }[status], ariaHidden: "true" }),
      make("span", { className: "title", textContent: video.name }),
      make("span", { className: "facts", textContent: [
        ...(video.duration ? [clock(Math.round(video.duration), 0)] : []), ...(status === "begun" ? [] : [status]),
        ...(video.marks ? [plural(video.marks, "click")] : []),
        ...(video.worth ? [`worth ${video.worth.toFixed(1)}`] : []),
      ].join(" · ") }));
    button.dataset.video = video.name;
    if (video.worth) button.title = "worth: the loss to expect of clicks on its unsure stretches, per minute of video";
    if (video.name === state.info?.name) button.setAttribute("aria-current", "true");
    button.addEventListener("click", () => { showList(false); open(video.name); });
    return make("li", {}, button);
  }));
  if (focused) [...$("videos").querySelectorAll("button")].find((button) => button.dataset.video === focused)?.focus();
  const done = state.all.videos.filter((video) => video.done);
  $("total").textContent = `${done.length} of ${plural(state.all.videos.length, "video")} done`;
  showSpent();
}

function showSpent() {
  if (!state.info || !state.all) return;
  const entry = state.all.videos.find((video) => video.name === state.info.name);
  const seconds = state.annotation.seconds + timer.seconds();
  if (entry) { entry.duration = state.info.duration; entry.seconds = seconds; }
  const rate = (spent, duration) => `${Math.round((60 * spent) / duration)} s per minute of video`;
  $("spent").textContent = `${clock(seconds, 0)} of work, ${rate(seconds, state.info.duration)} (paper: ${PAPER} s)`;
  const done = state.all.videos.filter((video) => video.done && video.duration && video.seconds);
  const total = (name) => done.reduce((sum, video) => sum + video[name], 0);
  const text = `${state.all.videos.filter((video) => video.done).length} of ${plural(state.all.videos.length, "video")} done`;
  const mean = done.length ? `; ${rate(total("seconds"), total("duration"))} (paper: ${PAPER} s)` : "";
  $("total").textContent = text + mean;
}

function neighbour(step) {
  const videos = ordered();
  const at = videos.findIndex((video) => video.name === state.info?.name);
  const rest = step > 0 ? videos.slice(at + 1) : videos.slice(0, Math.max(at, 0)).reverse();
  if (rest.length) openOne(rest); else notice(step > 0 ? "this is the last video" : "this is the first video");
}

function nextUnfinished() {
  const videos = ordered();
  const at = videos.findIndex((video) => video.name === state.info.name);
  const rest = state.all.advised ? videos : [...videos.slice(at + 1), ...videos.slice(0, at)];
  const left = rest.filter((video) => !video.done && video.name !== state.info.name);
  if (left.length) openOne(left); else notice("All videos are done. You can close the page.", "good", true);
}

function showList(open) {
  document.body.classList.toggle("listing", open);
  $("list-button").setAttribute("aria-expanded", open);
  if (open) ($("videos").querySelector("[aria-current]") ?? $("videos").querySelector("button"))?.focus();
}

// ---- labels

function askForLabels() {
  if (state.opening || state.asked) return;
  film.pause();
  const { annotation, info } = state;
  state.asked = { annotation, info, ticked: new Set(annotation.labels) };
  $("choices").replaceChildren(...state.all.labels.map((label, index) => {
    const given = info.given.includes(label);
    const box = make("input", { type: "checkbox", value: label, checked: given || annotation.labels.has(label), disabled: given });
    box.addEventListener("change", warn);
    const hint = given ? " (from the ground truth)" : "";
    return make("label", {}, box, make("span", { textContent: label + hint }),
      ...(index < 9 ? [make("kbd", { textContent: String(index + 1) })] : []));
  }));
  $("filter").value = "";
  find();
  warn();
  $("labels").showModal();
  $("filter").focus();
}

// The labels of the video as they are by now, with what was ticked and unticked in the dialog.
function chosen() {
  const { annotation, ticked } = state.asked;
  const labels = new Set(annotation.labels);
  for (const box of $("choices").querySelectorAll("input:not(:disabled)")) {
    if (box.checked && !ticked.has(box.value)) labels.add(box.value);
    if (!box.checked && ticked.has(box.value)) labels.delete(box.value);
  }
  return labels;
}

function warn() {
  const { annotation, info } = state.asked;
  const warnings = [];
  if (!info.given.length && !chosen().size) warnings.push("No label is ticked: the video will not be used for training.");
  if (!annotation.marks.length) warnings.push("No frame was clicked.");
  $("warning").textContent = warnings.join(" ");
}

function find() {
  const words = $("filter").value.trim().toLowerCase();
  for (const line of $("choices").children) line.hidden = !line.textContent.toLowerCase().includes(words);
}

$("filter").addEventListener("input", find);
$("filter").addEventListener("keydown", (event) => {
  const words = $("filter").value.trim();
  if (event.key === "Enter" && event.repeat) { event.preventDefault(); return; } // held: not done with the video as well
  if (/^[1-9]$/.test(event.key) && !words) {
    event.preventDefault();
    $("choices").children[event.key - 1]?.querySelector("input").click();
  } else if (event.key === "Enter" && words) {
    event.preventDefault();
    const box = [...$("choices").children].find((line) => !line.hidden)?.querySelector("input");
    if (box) box.checked = true;
    $("filter").value = "";
    find();
    warn();
  }
});
$("labels-cancel").addEventListener("click", () => $("labels").close("cancel"));
$("labels").addEventListener("cancel", () => { $("labels").returnValue = "cancel"; });
$("labels").addEventListener("close", () => {
  const { annotation } = state.asked;
  const labels = chosen();
  state.asked = null;
  if ($("labels").returnValue === "done") {
    annotation.change({ labels, done: true });
    nextUnfinished();
  } else {
    annotation.change({ labels });
  }
  $("labels").returnValue = "";
  strip.root.focus({ preventScroll: true });
});

// ---- what a click marks

function setAction(label) {
  state.action = label;
  $("mode-background").setAttribute("aria-pressed", label === null);
  $("mode-action").setAttribute("aria-pressed", label !== null);
  $("action").hidden = label === null;
  if (label !== null) $("action").value = label;
}

const lastAction = () => $("action").value || state.all.labels[0];

// ---- the film

const film = $("video");

function setFilm() {
  const { info } = state;
  film.removeAttribute("src");
  film.load();
  const ending = info.file.split(".").pop();
  $("film-says").textContent = info.plays ? "" : `Browsers do not play .${ending} files. The frames work all the same.`;
  film.hidden = !info.plays;
  if (info.plays && !$("film").hidden) film.src = `/film/${encodeURIComponent(info.name)}`;
}

function showFilm(shown) {
  $("film").hidden = !shown;
  document.body.classList.toggle("filming", shown);
  if (shown && state.info.plays && !film.src) film.src = `/film/${encodeURIComponent(state.info.name)}`;
  if (!shown) film.pause();
}

function play() {
  if (!$("film").hidden && !film.paused) { film.pause(); return; }
  showFilm(true);
  if (!state.info.plays) return;
  film.currentTime = strip.cursor / state.info.rate;
  film.play().catch(() => {});
}

film.addEventListener("error", () => {
  if (!film.getAttribute("src")) return;
  film.hidden = true;
  $("film-says").textContent = "This browser cannot play the file. The frames work all the same.";
});
film.addEventListener("timeupdate", () => {
  if (film.paused || !state.info) return;
  strip.move(Math.floor(film.currentTime * state.info.rate + 1e-3));
});
for (const kind of ["play", "pause"]) {
  film.addEventListener(kind, () => { $("play").textContent = film.paused ? "Play" : "Pause"; });
}

// ---- keyboard

const lineKeys = { ArrowLeft: -1, ArrowRight: 1 };
const stripKeys = {
  " ": (event) => event.repeat || toggle(strip.cursor),
  Enter: (event) => event.repeat || toggle(strip.cursor),
  ArrowUp: () => strip.move(strip.cursor - strip.perRow),
  ArrowDown: () => strip.move(strip.cursor + strip.perRow),
  PageUp: () => strip.page(-1),
  PageDown: () => strip.page(1),
  Home: () => strip.move(0),
  End: () => strip.move(Infinity),
};
const step = (name) => {
  const second = state.annotation[name]();
  if (second === null) return;
  strip.move(Math.floor(second * state.info.rate + 1e-6));
};
const marked = () => [...strip.marks.keys()].sort((a, b) => a - b);
const letters = {
  u: () => step("undo"),
  r: () => step("redo"),
  j: () => goAmong(marked(), 1, "there is no click yet"),
  k: () => goAmong(marked(), -1, "there is no click yet"),
  n: () => goToSuggestion(1),
  p: () => goToSuggestion(-1),
  m: () => setAction(state.action === null ? lastAction() : null),
  v: play,
  d: askForLabels,
  l: () => showList(true),
  ".": () => neighbour(1),
  ",": () => neighbour(-1),
  "+": () => strip.rescale(1),
  "=": () => strip.rescale(1),
  "-": () => strip.rescale(-1),
};

addEventListener("keydown", (event) => {
  if (document.querySelector("dialog[open]")) return;
  if (event.key === "?") { $("help").showModal(); return; }
  if (event.key === "Escape") { showList(false); showFilm(false); strip.root.focus({ preventScroll: true }); return; }
  if (event.altKey || /^(INPUT|SELECT|VIDEO)$/.test(event.target.tagName)) return;
  if (!state.annotation && !(state.all && "l.,".includes(event.key.toLowerCase()))) return; // nothing else goes without a video
  let act = null;
  if (event.ctrlKey || event.metaKey) {
    if (event.key.toLowerCase() === "z") act = () => step(event.shiftKey ? "redo" : "undo");
    if (event.key.toLowerCase() === "y") act = () => step("redo");
  } else if (event.target === strip.root && (stripKeys[event.key] || lineKeys[event.key])) {
    act = stripKeys[event.key] ?? (() => strip.move(strip.cursor + lineKeys[event.key]));
  } else if (/^[1-9]$/.test(event.key) && state.action !== null && state.all.labels[event.key - 1]) {
    act = () => setAction(state.all.labels[event.key - 1]);
  } else {
    act = letters[event.key.toLowerCase()];
  }
  if (!act) return;
  event.preventDefault();
  act(event);
});

for (const [id, act] of Object.entries({
  undo: letters.u, redo: letters.r, smaller: letters["-"], larger: letters["+"], earlier: letters.p, later: letters.n,
  play, finish: askForLabels,
  "mode-background": () => setAction(null), "mode-action": () => setAction(lastAction()),
})) {
  $(id).addEventListener("click", () => { act(); if (id !== "finish") strip.root.focus({ preventScroll: true }); });
}
$("action").addEventListener("change", () => { setAction($("action").value); strip.root.focus({ preventScroll: true }); });
$("help-button").addEventListener("click", () => $("help").showModal());
$("list-button").addEventListener("click", () => showList(!document.body.classList.contains("listing")));
$("film-close").addEventListener("click", () => { showFilm(false); strip.root.focus({ preventScroll: true }); });
for (const dialog of document.querySelectorAll("dialog")) {
  dialog.addEventListener("close", () => strip.root.focus({ preventScroll: true }));
}

// ---- annotators

// Waits a while for what is not saved yet. What then is not stays in the browser, which asks whether to go on.
async function become(name) {
  for (let turn = 0; turn < 50 && isUnsaved(); turn += 1) await new Promise((wake) => setTimeout(wake, 100));
  location.hash = new URLSearchParams({ who: name, video: state.info?.name ?? "" });
  timer.send();
  location.reload();
}
const isUnsaved = () => [...annotations.values()].some((annotation) => annotation.unsaved);
addEventListener("beforeunload", (event) => { if (isUnsaved()) event.preventDefault(); });
$("who").addEventListener("change", () => {
  const name = $("who").value;
  $("who").value = state.all.annotator;
  if (name) become(name); else $("newcomer").showModal();
});
$("newcomer-cancel").addEventListener("click", () => $("newcomer").close("cancel"));
$("newcomer").querySelector("form").addEventListener("submit", () => {
  const name = $("newcomer-name").value.trim();
  if (name) become(name);
});

// ---- begin

const strip = new Strip($("strip"), {
  toggled: toggle,
  moved: () => { sayWhere(); drawOverview(); clearTimeout(state.noting); state.noting = setTimeout(remember, 300); },
  scrolled: drawOverview,
});
const overview = new Overview($("overview"), (frame) => { strip.move(frame, false); strip.centre(frame); });
const timer = new Clock(() => !film.paused);
setInterval(showSpent, 1000);
addEventListener("resize", drawOverview);

async function lookAgain(video) {
  if (!state.annotation || (video && video !== state.info.name)) return;
  const answer = await ask(path(state.info.name)).catch(() => null);
  if (answer?.status !== 200 || answer.content.name !== state.info.name) return;
  if (state.annotation.refresh(answer.content)) notice(`${state.info.name} was changed elsewhere; that was loaded.`);
}
if (channel) {
  channel.addEventListener("message", ({ data }) => { if (data.id === state.all?.id) lookAgain(data.video); });
}
addEventListener("focus", () => lookAgain());

async function recover() {
  for (const [key, annotator, entry] of leftBehind(state.all.id)) {
    const name = entry.video + (annotator === state.all.annotator ? "" : ` (${annotator})`);
    try {
      const { annotation } = await annotationOf(entry.video, annotator);
      const count = annotation.absorb(entry);
      localStorage.removeItem(key);
      if (count) notice(`${name}: ${plural(count, "change")} had not been saved; this was made up for.`, "good");
    } catch (failure) {
      notice(`${name}: changes that were not saved are still kept here: ${failure.message}`, "bad", true);
    }
  }
}

async function begin(refused = "") {
  try {
    await load();
  } catch (failure) {
    const { who, ...rest } = address();
    if (failure.status === 422 && who !== undefined) {
      // No such name, or a file of this annotator that cannot be read: the server's own annotator may do.
      history.replaceState(null, "", `#${new URLSearchParams(rest)}`);
      begin(failure.message);
      return;
    }
    notice(failure instanceof TypeError ? "The server does not answer. Trying again…" : failure.message, "bad", true);
    setTimeout(begin, NEAR, refused);
    return;
  }
  $("notices").replaceChildren();
  if (refused) notice(refused, "bad", true);
  $("action").replaceChildren(...state.all.labels.map((label) => make("option", { textContent: label, value: label })));
  showSaved();
  await recover();
  const wanted = address();
  const videos = ordered();
  const first = videos.find((video) => video.name === wanted.video) ?? videos.find((video) => !video.done) ?? videos[0];
  const at = videos.indexOf(first);
  const found = await open(first.name, first.name === wanted.video ? Number(wanted.t) || 0 : 0);
  if (!found) await openOne([...videos.slice(at + 1), ...videos.slice(0, at)]);
}

begin();
