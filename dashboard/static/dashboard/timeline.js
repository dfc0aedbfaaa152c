// A replica's past as a drawing: its health as a band, what operators did as ticks, each session as a bar in a lane.

import { mark, s } from "./dom.js";
import { clock, number, span } from "./words.js";

const BAND = { top: 14, height: 18 };
const LANES = { top: 42, height: 5, gap: 2, most: 30 };
const AXIS = 22;
const STEPS = [300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800];
const FAILED = [1011, 1013];

export const isFailure = ({ close_code: code }) => FAILED.includes(code);

// Stretches of one status: [from, to, status], oldest first. Transitions are newest first, as the server sends them.
export function stretches({ transitions, from, to, replica }) {
  const ordered = [...transitions].sort((one, other) => one.at - other.at);
  const found = [];
  let [since, status] = [from, ordered.length ? ordered[0].old : replica.status];
  for (const { at, new: next } of ordered) {
    if (at > since) found.push([since, Math.min(at, to), status]);
    [since, status] = [Math.max(since, at), next];
  }
  if (to > since) found.push([since, to, status]);
  return found;
}

// [lane, session]: each in the first lane that is free at its beginning; those beyond the last lane share it.
export function lanes(sessions, to) {
  const ends = [];
  return [...sessions].filter(({ placed_at: at }) => at !== null).sort((one, other) => one.placed_at - other.placed_at).map((session) => {
    let lane = ends.findIndex((end) => end <= session.placed_at);
    if (lane < 0) lane = Math.min(ends.length, LANES.most - 1);
    ends[lane] = session.ended_at ?? to;
    return [lane, session];
  });
}

// The time it was healthy, as a share of the time its status was known; null if it never was.
export function healthyShare(bands) {
  const sum = (kinds) => bands.filter(([, , status]) => kinds.includes(status)).reduce((total, [from, to]) => total + to - from, 0);
  const known = sum(["healthy", "unhealthy"]);
  return known ? sum(["healthy"]) / known : null;
}

export function draw(svg, history) {
  const width = svg.clientWidth;
  if (!width) return;
  const { from, to, sessions, acts } = history;
  const x = (at) => ((Math.min(to, Math.max(from, at)) - from) / (to - from)) * width;
  const placed = lanes(sessions, to);
  const used = placed.reduce((most, [lane]) => Math.max(most, lane + 1), 0);
  const foot = LANES.top + Math.max(1, used) * (LANES.height + LANES.gap);
  const bands = stretches(history);
  svg.setAttribute("height", foot + AXIS);
  svg.replaceChildren(
    ...axis(from, to, width, foot, x),
    ...bands.map(([start, end, status]) => titled(
      s("rect", { class: `band-${status}`, x: x(start), y: BAND.top, width: Math.max(1.5, x(end) - x(start)), height: BAND.height }),
      `${status}, ${clock(start, to)} to ${clock(end, to)} (${span(end - start)})`)),
    ...placed.map(([lane, session]) => titled(
      s("rect", {
        class: isFailure(session) ? "stay failed" : "stay", x: x(session.placed_at), y: LANES.top + lane * (LANES.height + LANES.gap),
        width: Math.max(1.5, x(session.ended_at ?? to) - x(session.placed_at) - 0.5), height: LANES.height, rx: 1,
      }), `${session.uid}: ${session.sentence || "live"}`)),
    ...acts.map(({ at, who, text }) => titled(s("path", { class: "deed", d: `M${x(at)} ${BAND.top + BAND.height + 3}V2m-4 0h8l-4 6z` }), `${who}: ${text}`)),
  );
  mark(svg, "aria-label", `${summary(history, bands)} The list below has it in words.`);
}

export function summary({ from, to, sessions, acts }, bands) {
  const share = healthyShare(bands);
  const outages = bands.filter(([, , status]) => status === "unhealthy").length;
  const failed = sessions.filter(isFailure).length;
  const healthy = share === null ? "Never probed" : `Healthy ${share === 1 ? "all the time" : `${(Math.floor(share * 1000) / 10).toFixed(1)} % of the time`}`;
  const most = sessions.length >= 500 ? "the last 500" : number(sessions.length);
  return `${span(to - from)}: ${healthy.toLowerCase()}, ${number(outages)} ${outages === 1 ? "outage" : "outages"}, ${most} sessions of which ${number(failed)} failed, ${number(acts.length)} ${acts.length === 1 ? "act" : "acts"}.`;
}

function titled(element, title) {
  element.append(s("title", {}, title));
  return element;
}

function axis(from, to, width, foot, x) {
  const room = Math.max(2, Math.floor(width / 95));
  const step = STEPS.find((one) => (to - from) / one <= room) ?? STEPS.at(-1);
  const shift = new Date(to * 1000).getTimezoneOffset() * 60; // whole hours of the reader's own clock
  const marks = [];
  for (let at = Math.ceil((from - shift) / step) * step + shift; at < to; at += step) {
    const place = x(at);
    marks.push(s("line", { class: "grid", x1: place, x2: place, y1: 0, y2: foot + 3 }));
    if (place < 24 || place > width - 24) continue;
    const text = step >= 86400 ? clock(at, to).slice(5, 10) : clock(at, at, false);
    marks.push(s("text", { x: place, y: foot + 17 }, text));
  }
  return marks;
}
