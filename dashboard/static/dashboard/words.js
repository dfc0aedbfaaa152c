// PURE. Numbers and times as people say them. Used by every module of the dashboard; touches no document.

export const NOTHING = "–";

const count = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const tenth = new Intl.NumberFormat("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 });

export function number(value) {
  return value === null || value === undefined ? NOTHING : count.format(value);
}

// “1 session”, “7 sessions”, “no session”.
export function several(value, word) {
  return `${value ? number(value) : "no"} ${word}${value > 1 ? "s" : ""}`;
}

// seconds ≥ 0: “40 s”, “3 min”, “2 h 5 min”, “4 d 2 h”.
export function span(seconds) {
  if (seconds === null || seconds === undefined) return NOTHING;
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 120) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 120) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  const days = Math.floor(hours / 24);
  return hours % 24 ? `${days} d ${hours % 24} h` : `${days} d`;
}

// Decimal units, as network people count: “840 B”, “1.2 MB”.
export function bytes(value) {
  if (value === null || value === undefined) return NOTHING;
  let left = value;
  for (const unit of ["B", "kB", "MB", "GB", "TB"]) {
    if (left < 999.5 || unit === "TB") return `${unit === "B" || left >= 99.95 ? number(left) : tenth.format(left)} ${unit}`;
    left /= 1000;
  }
  return NOTHING;
}

export function rate(value) {
  return value === null || value === undefined ? NOTHING : `${bytes(value)}/s`;
}

// Latencies and such: “0.8 ms”, “12 ms”.
export function milliseconds(value) {
  if (value === null || value === undefined) return NOTHING;
  return `${value < 9.95 ? tenth.format(value) : number(value)} ms`;
}

export function per(value) {
  return value === null || value === undefined ? NOTHING : value > 0 && value < 9.95 && value % 1 ? tenth.format(value) : number(value);
}

function two(value) {
  return String(value).padStart(2, "0");
}

// The reader's own time of day, with the date where it is not that of `now`. Both in Unix seconds.
export function clock(at, now, withSeconds = true) {
  if (at === null || at === undefined) return NOTHING;
  const then = new Date(at * 1000);
  const time = `${two(then.getHours())}:${two(then.getMinutes())}${withSeconds ? `:${two(then.getSeconds())}` : ""}`;
  const today = new Date(now * 1000);
  if (then.toDateString() === today.toDateString()) return time;
  return `${then.getFullYear()}-${two(then.getMonth() + 1)}-${two(then.getDate())} ${time}`;
}

// “a”, “a and b”, “a, b and 7 more”.
export function names(list, most = 3) {
  if (list.length <= 1) return list.join("");
  if (list.length <= most) return `${list.slice(0, -1).join(", ")} and ${list.at(-1)}`;
  return `${list.slice(0, most - 1).join(", ")} and ${number(list.length - most + 1)} more`;
}

// An error's words as a part of a sentence: without the full stop at their end.
export function clause(text) {
  return text.replace(/[.\s]+$/, "");
}
