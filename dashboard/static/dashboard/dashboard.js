// The dashboard: hears the router (live.js), and has each part of the page show what it says.

import { Acts } from "./acts.js";
import { arrange, byId, h, mark, show, write } from "./dom.js";
import { Figures, Processes } from "./figures.js";
import { Live } from "./live.js";
import { read } from "./reading.js";
import { Replicas } from "./replicas.js";
import { Sessions } from "./sessions.js";
import { span } from "./words.js";

const NOTICE_MS = 8000;
const MOST_POINTS = 6;
const FEEDS = { connecting: "connecting…", live: "live", polling: "polling", "signed out": "signed out" };

let drawing = 0;
let spoken = "";
let noticed = 0;

const live = new Live(document.body.dataset.base, { changed: draw, felt });
const acts = new Acts({ rowOf: (id) => live.state?.replicas.find((row) => row.id === id), done: acted });
const sessions = new Sessions({ acts });
const replicas = new Replicas({ acts, sessionsOf: (id) => sessions.of(id) });
const figures = new Figures();
const processes = new Processes();

// At most once a frame, however many messages come.
function draw() {
  if (!drawing) drawing = requestAnimationFrame(() => { drawing = 0; render(); });
}

function render() {
  const { state } = live;
  if (!state) return;
  const now = live.now();
  document.body.dataset.ready = "true";
  verdict(state, now);
  figures.update(state, now);
  replicas.update(state, now);
  processes.update(state, now);
  sessions.told(state);
  acts.update();
}

function verdict(state, now) {
  const { level, sentence, advice, points, key } = read(state, now);
  mark(byId("verdict"), "data-level", level);
  write(byId("verdict-text"), sentence);
  write(byId("verdict-advice"), advice);
  show(byId("verdict-advice"), Boolean(advice));
  const list = byId("points");
  const shown = points.slice(0, MOST_POINTS);
  if (points.length > MOST_POINTS) shown.push({ level: "off", text: `and ${points.length - MOST_POINTS} more`, advice: "" });
  arrange(list, shown.map((point, index) => {
    const item = list.children[index] ?? h("li", {}, h("span", { class: "text" }), " ", h("span", { class: "advice" }));
    mark(item, "data-level", point.level);
    write(item.children[0], point.advice ? `${point.text}.` : point.text);
    write(item.children[1], point.advice);
    return item;
  }));
  const worst = { bad: "✕ ", wait: "! ", good: "" }[level] ?? "";
  if (document.title !== `${worst}${sentence} – Stream router`) document.title = `${worst}${sentence} – Stream router`;
  // A screen reader hears it when something new is wrong or right, not each second that an age counts up.
  if (key !== spoken) write(byId("spoken"), [sentence, ...points.map(({ text }) => text)].join(". "));
  spoken = key;
}

function felt(feed) {
  document.body.dataset.feed = feed;
  show(byId("signed-out"), feed === "signed out");
  if (feed === "signed out") sessions.stop();
  feel();
}

function feel() {
  const { feed } = live;
  write(byId("feed-text"), feed === "stale" ? `stale · ${span(live.silence())}` : FEEDS[feed]);
  show(byId("stale"), feed === "stale");
  if (feed === "stale") {
    write(byId("stale"), live.state ? `Nothing heard for ${span(live.silence())}: what stands here is old. Trying again by itself.` : "The router has not answered yet. Trying again by itself.");
  }
}

// After an act: what was done stays readable for a while, and what it changed is on its way.
function acted(said) {
  write(byId("notice"), said);
  byId("notice").dataset.shown = "true";
  clearTimeout(noticed);
  noticed = setTimeout(() => { delete byId("notice").dataset.shown; write(byId("notice"), ""); }, NOTICE_MS);
  sessions.settle();
}

live.start();
sessions.start();
setInterval(() => { feel(); if (live.feed !== "signed out") draw(); }, 1000);
