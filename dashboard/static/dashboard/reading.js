// PURE. What a snapshot means: the state of the fleet in one sentence, what else is wrong, and what to do about it.
// Used by the page for its first line; knows the words of the design, and no document.

import { clause, names, number, several, span } from "./words.js";

// From the worst to the best. "off" is what an operator wanted.
export const LEVELS = ["bad", "wait", "off", "good"];
const FAILURES_THAT_COUNT = 3; // a minute; fewer are a client's bad luck

export function isEjected(row, now) {
  return row.ejected_until !== null && row.ejected_until > now;
}

export function isFull(row, now) {
  return (row.slots !== null && row.sessions >= row.slots) || (row.full_until !== null && row.full_until > now);
}

// How much attention a replica asks for.
export function levelOf(row, now) {
  if (row.deleted || row.state === "disabled") return "off";
  if (row.status === "unhealthy") return "bad";
  if (isEjected(row, now) || row.stale || row.status === "unknown") return "wait";
  return row.state === "draining" ? "off" : "good";
}

// The signs beside a replica: [word, class of the badge]. Every one says its word; colour is never the only sign.
export function marksOf(row, now) {
  const marks = [];
  if (row.deleted) return [["deleted", "deleted"]];
  marks.push([row.status, `status-${row.status}`]);
  if (row.registered) marks.push([row.lapsed ? "lapsed" : "registered", "registered"]);
  if (row.state !== "active") marks.push([row.state, `state-${row.state}`]);
  if (row.stale) marks.push(["stale", "stale"]);
  if (isEjected(row, now)) marks.push([`ejected · ${span(row.ejected_until - now)}`, "ejected"]);
  if (isFull(row, now)) marks.push(["full", "full"]);
  if (row.slow_start !== null) marks.push([`slow start · ${Math.round(row.slow_start * 100)} %`, "slow"]);
  return marks;
}

// {level, sentence, advice, points: [{level, text, advice}]}: the first is the worst. `key` changes only when there is
// something new to hear: what counts up by itself is not in it.
export function read(state, now) {
  const points = [
    ...placing(state, now),
    ...prober(state.prober, now - state.told.prober),
    ...line(state, now),
    ...single(state, now),
    ...processes(state, now),
    ...failures(state.totals),
  ];
  points.sort((one, other) => LEVELS.indexOf(one.level) - LEVELS.indexOf(other.level));
  const first = points.find((point) => point.level !== "off");
  const rest = points.filter((point) => point !== first);
  const head = first ?? { level: "good", text: allWell(state), advice: "", key: "well" };
  return { level: head.level, sentence: head.text, advice: head.advice, points: rest, key: [head, ...rest].map((p) => p.key).join(";") };
}

// What is in use of the slots that newcomers may get: a draining replica's count neither here nor there.
export function slotsInUse(replicas) {
  return replicas.filter((row) => row.state === "active" && row.status === "healthy" && !row.deleted).reduce((sum, row) => sum + row.sessions, 0);
}

function allWell({ totals, replicas }) {
  if (totals.slots !== null) return `All well: ${number(slotsInUse(replicas))} of ${number(totals.slots)} slots in use`;
  const up = replicas.filter((row) => row.available).length;
  return `All well: ${several(totals.sessions, "session")} on ${several(up, "replica")}`;
}

function point(level, key, text, advice = "") {
  return { level, key, text, advice };
}

function prober({ state, beat_age: age }, since) {
  const start = "Start “manage.py runhealthchecks”; its log says why it ended.";
  if (state === "never ran") return [point("bad", "never ran", "The prober has never run: no replica's health is known", start)];
  if (state !== "stale") return [];
  const silent = age === null ? "" : ` for ${span(age + since)}`;
  return [point("bad", "prober", `The prober is silent${silent}: what is said of replicas is its last word`, start)];
}

// Can a newcomer be placed?
function placing({ replicas, line: { length }, prober: { state: probing } }, now) {
  const present = replicas.filter((row) => !row.deleted);
  const active = present.filter((row) => row.state === "active");
  const healthy = active.filter((row) => row.status === "healthy");
  if (!present.length) {
    return [point("bad", "none", "Nobody can be placed: there is no replica", "Add one in the admin; its address is all that it takes.")];
  }
  if (!active.length) {
    return [point("bad", "inactive", "Nobody can be placed: every replica is draining or disabled", "Activate one.")];
  }
  if (!healthy.length) {
    const unknown = active.every((row) => row.status === "unknown");
    if (unknown && probing === "never ran") return []; // that is the cause, and said by itself
    return unknown
      ? [point("bad", "unknown", "Nobody can be placed: no replica has been probed yet", "Once a probe has succeeded it gets sessions.")]
      : [point("bad", "unhealthy", "Nobody can be placed: no replica is healthy", "The last errors below say why; one good server is enough.")];
  }
  const open = healthy.filter((row) => !isEjected(row, now));
  if (!open.length) {
    return [point("bad", "ejected", "Nobody can be placed: connects to all healthy replicas fail", "Their health path answers, their stream path does not: look there.")];
  }
  if (open.every((row) => isFull(row, now))) {
    const waiting = length ? `${number(length)} in the line` : "the next client waits";
    return [point("wait", "full", `Every slot is in use: ${waiting}`, "Add a replica or slots, or activate one that is out.")];
  }
  return [];
}

function line({ line: { length, longest_wait: wait, max_length: most, timeout_seconds: timeout }, told }, now) {
  if (length && length >= most) {
    return [point("bad", "line", `The line is full: newcomers are refused (${number(length)} of ${number(most)})`, "Add a replica or slots; “Longest line” is in the router settings.")];
  }
  const waited = wait === null ? 0 : wait + now - told.line;
  if (length && waited > timeout / 2) {
    return [point("wait", "wait", `The longest wait in the line is ${span(waited)} of ${span(timeout)}`, "After that a client is refused with 1013 queue_timeout.")];
  }
  return [];
}

function single({ replicas, prober: { state: probing } }, now) {
  const points = [];
  const present = replicas.filter((row) => !row.deleted);
  const wanted = present.filter((row) => row.state === "active");
  const named = (rows) => names(rows.map((row) => row.name));
  const are = (rows) => (rows.length === 1 ? "is" : "are");
  const all = (rows) => rows.map((row) => row.id).join(",");

  const bad = wanted.filter((row) => row.status === "unhealthy");
  if (bad.length === 1) {
    const [row] = bad;
    const since = row.status_since === null ? "" : ` for ${span(now - row.status_since)}`;
    const why = row.last_error ? `: ${clause(row.last_error)}` : "";
    points.push(point(row.primary || wanted.length === 1 ? "bad" : "wait", `bad ${row.id}`, `${row.name} has been unhealthy${since}${why}`, others(row, wanted)));
  } else if (bad.length) {
    const level = bad.some((row) => row.primary) || bad.length * 4 >= wanted.length ? "bad" : "wait";
    points.push(point(level, `bad ${all(bad)}`, `${number(bad.length)} of ${number(wanted.length)} replicas are unhealthy: ${named(bad)}`, bad.length < wanted.length ? "The others take their sessions." : ""));
  }
  const ejected = wanted.filter((row) => row.status === "healthy" && isEjected(row, now));
  if (ejected.length) {
    points.push(point("wait", `ejected ${all(ejected)}`, `${named(ejected)} ${are(ejected)} ejected: probes succeed, but connects failed in a row`, "Tried again by itself, with backoff; look at the stream path of that server."));
  }
  const stale = wanted.filter((row) => row.stale);
  if (stale.length && probing === "ok") {
    points.push(point("wait", `stale ${all(stale)}`, `${named(stale)} ${are(stale)} stale: not probed for too long`, "They rank behind fresh ones. The prober's log names what holds it up."));
  }
  const primary = present.find((row) => row.primary);
  if (primary && primary.state !== "active") {
    points.push(point("wait", `primary ${primary.id}`, `The primary ${primary.name} is ${primary.state}: the others share`, "Make another one the primary, or activate it."));
  }
  for (const row of replicas.filter(({ deleted, state }) => !deleted && state === "draining").slice(0, 3)) {
    points.push(point("off", `drain ${row.id} ${row.sessions === 0}`, row.sessions ? `${row.name} drains: ${number(row.sessions)} left` : `${row.name} has drained: no session left`));
  }
  return points;
}

function others(row, wanted) {
  const left = wanted.filter((other) => other.status === "healthy").length;
  const who = left ? `${several(left, "other")} ${left === 1 ? "takes" : "take"} its sessions.` : "";
  return row.primary && left ? `${who} To keep one of them first, make it the primary.` : who;
}

function processes({ processes: list, told }, now) {
  const silent = list.filter((process) => process.state === "silent");
  if (!silent.length) return [];
  const one = silent.length === 1 ? silent[0] : null;
  const text = one
    ? `Router process ${one.name} has been silent for ${span((one.beat_age ?? 0) + now - told.processes)}`
    : `${number(silent.length)} router processes are silent: ${names(silent.map(({ name }) => name))}`;
  return [point("wait", `silent ${silent.map(({ id }) => id).join(",")}`, text, "Its slots come free within 10 s of its last beat; start it again.")];
}

function failures({ opened_per_minute: opened, failed_per_minute: failed }) {
  if (failed < FAILURES_THAT_COUNT || failed * 10 < opened) return [];
  return [point("wait", "failing", `${number(failed)} sessions failed in the last minute, ${number(opened)} were opened`, "The ended sessions below say why, each in a sentence.")];
}
