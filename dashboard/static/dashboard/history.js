// A replica's history: asked for every 5 s, drawn as a timeline (timeline.js) and told as a list, newest first.

import { badges, byId, h, mark, show, write } from "./dom.js";
import { levelOf, marksOf } from "./reading.js";
import { ask } from "./server.js";
import { draw, isFailure, stretches, summary } from "./timeline.js";
import { bytes, clock, number, span } from "./words.js";

const REFRESH_MS = 5000;
const FEW = 100;

// A browser may have kept another choice than the page came with.
let hours = byId("hours").querySelector(":checked").value;
let kind = "all";
let all = false;
let known = null;
let heardAt = performance.now();
let busy = null;
let told = "";

async function refresh() {
  if (busy || document.hidden) return;
  const mine = (busy = new AbortController());
  const timer = setTimeout(() => mine.abort(new DOMException("", "TimeoutError")), 10000);
  try {
    const found = await ask(`replicas/${document.body.dataset.replica}/history.json?hours=${hours}`, { signal: mine.signal });
    if (busy !== mine) return;
    known = found;
    heardAt = performance.now();
    feel("live", "");
    document.body.dataset.ready = "true";
    render();
  } catch (error) {
    if (busy === mine && error.name !== "AbortError") {
      if (error.status === 403) feel("signed out", "");
      else feel("stale", `${error.message} What stands here is ${span((performance.now() - heardAt) / 1000)} old.`);
    }
  } finally {
    clearTimeout(timer);
    if (busy === mine) busy = null;
  }
}

function feel(feed, why) {
  document.body.dataset.feed = feed;
  write(byId("feed-text"), feed);
  show(byId("stale"), feed === "stale");
  write(byId("stale"), why);
  show(byId("signed-out"), feed === "signed out");
  if (feed === "signed out") clearInterval(pace);
}

function render() {
  const { replica, to } = known;
  write(byId("replica-name"), replica.name);
  badges(byId("replica-marks"), [...(replica.primary ? [["★ primary", ""]] : []), ...marksOf(replica, to)]);
  write(byId("replica-since"), replica.status_since === null ? "" : `for ${span(to - replica.status_since)}`);
  show(byId("replica-error"), Boolean(replica.last_error));
  write(byId("replica-error"), replica.last_error);
  mark(byId("replica"), "data-level", levelOf(replica, to));
  write(byId("summary"), summary(known, stretches(known)));
  draw(byId("timeline"), known);
  list();
}

function moments() {
  const { transitions, sessions, acts } = known;
  return [
    ...transitions.map(({ at, old, new: now, reason }) => ({ at, kind: "health", badge: [now, `status-${now}`], text: `${reason || "seen so"} (before: ${old})` })),
    ...acts.map(({ at, who, text }) => ({ at, kind: "act", badge: ["act", ""], text: `${who}: ${text}` })),
    ...sessions.map((session) => ({
      at: session.ended_at ?? session.placed_at, kind: "session", badge: session.ended_at === null ? ["live", "state-active"] : isFailure(session) ? ["failed", "status-unhealthy"] : ["ended", ""],
      text: `${session.uid} ${session.ended_at === null ? "came" : session.sentence}${session.ended_at !== null && session.placed_at !== null ? ` after ${span(session.ended_at - session.placed_at)}` : ""}, ${bytes(session.bytes_down)} down`,
    })),
  ].sort((one, other) => other.at - one.at);
}

function list() {
  const found = moments().filter((moment) => kind === "all" || moment.kind === kind);
  const shown = all ? found : found.slice(0, FEW);
  // Written anew only when there is something new: a reader may be in the middle of it.
  const said = JSON.stringify(shown);
  if (said !== told) {
    byId("moments").replaceChildren(...shown.map(({ at, badge: [word, look], text }) =>
      h("li", {}, h("time", { datetime: new Date(at * 1000).toISOString() }, clock(at, known.to)), h("span", {}, h("span", { class: `badge ${look}` }, word)), h("span", { class: "text" }, text))));
  }
  told = said;
  write(byId("moments-count"), found.length ? number(found.length) : "");
  show(byId("moments-none"), !found.length);
  show(byId("moments-more"), found.length > FEW);
  write(byId("moments-more"), all ? `Show ${FEW}` : `Show all ${number(found.length)}`);
}

byId("hours").addEventListener("change", ({ target }) => {
  hours = target.value;
  busy?.abort();
  busy = null;
  refresh();
});
byId("kinds").addEventListener("change", ({ target }) => { kind = target.value; if (known) list(); });
byId("moments-more").addEventListener("click", () => { all = !all; list(); });
document.addEventListener("visibilitychange", refresh);
new ResizeObserver(() => { if (known) draw(byId("timeline"), known); }).observe(byId("timeline"));
const pace = setInterval(refresh, REFRESH_MS);
refresh();
