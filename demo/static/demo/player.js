// The player: one WebSocket to the router, its messages to the screen and into the story, and new tries by itself.

import { MediaFeed, canPlay } from "./media.js";
import { delayMs } from "./retry.js";
import { Story, bytesInWords, closeInWords, errorInWords, isRetryable } from "./story.js";

const byId = (id) => document.getElementById(id);
const ui = Object.fromEntries(
  ["video", "prompt", "go", "stop", "form", "ideas", "replica", "segments", "received", "rate", "curtain-title",
    "curtain-text", "phase-text"].map((id) => [id, byId(id)]),
);
const story = new Story(byId("story"));

let socket = null;
let feed = null;
let retry = { attempt: 0, timer: 0, ticker: 0 };
let seen = { segments: 0, bytes: 0, recent: [] };
let lastError = null;

// phase: idle, connecting, queued, playing, retrying, ended, failed. Also what tests and styles look at.
function phase(name, title, text = "") {
  const focused = document.activeElement;
  document.body.dataset.phase = name;
  write(ui["phase-text"], title);
  write(ui["curtain-title"], title);
  write(ui["curtain-text"], text);
  const open = ["connecting", "queued", "playing"].includes(name);
  ui.stop.hidden = !open && name !== "retrying";
  write(ui.stop, open ? "Stop" : "Cancel");
  write(ui.go, open ? "Change prompt" : { idle: "Start", retrying: "Reconnect now" }[name] ?? "Reconnect");
  if (focused === ui.stop && ui.stop.hidden) ui.go.focus(); // or the keyboard would begin at the top of the page
}

// Only what is new: a screen reader reads a live region again each time it is written.
function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// What a press of the button starts, while there is no connection.
function start() {
  if (!canPlay) {
    phase("failed", "This browser cannot play the video", "It has no Media Source Extensions; a current one does.");
    story.tell("This browser cannot play the video.", "bad");
    return;
  }
  if (document.body.dataset.phase !== "retrying") story.begin();
  retry.attempt = 0;
  connect();
}

function connect() {
  clearTimeout(retry.timer);
  clearInterval(retry.ticker);
  hangUp();
  lastError = null;
  seen = { segments: 0, bytes: 0, recent: [] };
  ui.replica.textContent = "–";
  delete document.body.dataset.replica;
  showCounts();
  phase("connecting", "Connecting…", "Looking for a free GPU.");
  story.tell("Connecting to the router.");
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  socket = new WebSocket(`${scheme}://${location.host}${document.body.dataset.streamPath}${location.search}`);
  socket.binaryType = "arraybuffer";
  feed = new MediaFeed(ui.video, (fault) => story.tell(fault, "bad"));
  const mine = socket;
  const current = (handler) => (event) => { if (mine === socket) handler(event); };
  mine.addEventListener("open", current(() => send({ type: "session_init_v2", client_id: "player", curated_prompts: [promptText()], stream_mode: "av_fmp4" })));
  mine.addEventListener("message", current(({ data }) => (typeof data === "string" ? told(JSON.parse(data)) : media(data))));
  mine.addEventListener("close", current(closed));
}

function hangUp() {
  const old = socket;
  socket = null;
  if (old && old.readyState <= WebSocket.OPEN) old.close(1000, "stopped");
  if (feed) feed.close();
  feed = null;
}

function send(message) {
  if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
}

function promptText() {
  return ui.prompt.value.trim() || "surprise me";
}

const tellers = {
  queue_status({ position, queue_depth: depth }) {
    if (!position) return;
    phase("queued", `In line, place ${position}`, `${depth} waiting. The session begins by itself.`);
    story.tell(`In line: place ${position} of ${depth}.`);
  },
  gpu_assigned({ gpu_id: gpu }) {
    ui.replica.textContent = gpu;
    document.body.dataset.replica = gpu;
    phase("connecting", "Generating…", "The first segment is on its way.");
    story.tell(`On ${gpu}.`, "good");
  },
  ltx2_stream_start({ width, height, fps }) {
    story.tell(`The stream begins: ${width}×${height}, ${fps} frames a second.`);
  },
  ltx2_segment_start({ segment_idx: index, prompt }) {
    story.tell(`Segment ${index}: “${prompt}”`);
  },
  media_init({ mime }) {
    feed?.segment(mime);
  },
  ltx2_segment_complete({ generation_time_ms: ms }) {
    seen.segments += 1;
    retry.attempt = 0;
    story.tell(`Generated in ${(ms / 1000).toFixed(2)} s, ${bytesInWords(seen.bytes)} received so far.`);
    showCounts();
  },
  session_timeout() {
    story.tell("The time for this session is over.");
  },
  ltx2_stream_complete({ reason }) {
    feed?.end();
    story.tell(`The stream is complete (${reason}).`);
  },
  error(message) {
    lastError = message;
    story.tell(errorInWords(message), "bad", message.message);
  },
};

function told(message) {
  tellers[message.type]?.(message);
}

function media(data) {
  seen.bytes += data.byteLength;
  seen.recent.push([performance.now(), data.byteLength]);
  feed?.chunk(data);
  if (document.body.dataset.phase !== "playing") phase("playing", "Playing");
  showCounts();
}

function closed({ code, reason }) {
  socket = null;
  const words = closeInWords(code, reason);
  const again = lastError ? lastError.retryable : isRetryable(code);
  story.tell(words, code === 1000 ? "" : "bad");
  if (again) tryAgain(words);
  else phase(code === 1000 || code === 1005 ? "ended" : "failed", code === 1000 ? "The session is over" : "The session ended", words);
}

function tryAgain(words) {
  const wait = delayMs(retry.attempt);
  retry.attempt += 1;
  const due = performance.now() + wait;
  phase("retrying", "Trying again", words);
  const show = () => {
    const left = Math.max(0, Math.ceil((due - performance.now()) / 1000));
    write(ui["curtain-title"], `Trying again in ${left} s`); // the curtain is no live region
  };
  show();
  story.tell(`Trying again in ${(wait / 1000).toFixed(1)} s (try ${retry.attempt}).`);
  retry.ticker = setInterval(show, 250);
  retry.timer = setTimeout(connect, wait);
}

function showCounts() {
  ui.segments.textContent = seen.segments;
  document.body.dataset.segments = seen.segments;
  ui.received.textContent = bytesInWords(seen.bytes);
  const since = performance.now() - 5000;
  seen.recent = seen.recent.filter(([at]) => at > since);
  const rate = seen.recent.reduce((sum, [, bytes]) => sum + bytes, 0) / 5;
  ui.rate.textContent = rate ? `${bytesInWords(rate)}/s` : "–";
}

ui.form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (!socket) {
    start();
    return;
  }
  // Before the socket is open nothing is sent: the session's first message will bring the prompt.
  send({ type: "segment_prompt_source", prompt: promptText() });
  story.tell(`You asked for “${promptText()}”.`);
});

ui.stop.addEventListener("click", () => {
  clearTimeout(retry.timer);
  clearInterval(retry.ticker);
  const wasOpen = socket !== null;
  hangUp();
  story.tell(wasOpen ? "You stopped the session." : "You cancelled the next try.");
  phase("ended", "Stopped", "Press Reconnect for a new session.");
});

ui.ideas.addEventListener("click", ({ target }) => {
  if (target.tagName !== "BUTTON") return;
  ui.prompt.value = target.textContent;
  ui.form.requestSubmit();
});

setInterval(showCounts, 1000);
