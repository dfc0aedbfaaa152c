// The session's story in plain words: what each message and close code means to the person who watches.

const MAX_LINES = 200;

const CLOSE_WORDS = {
  1000: "The session is over.",
  1001: "The server went away.",
  1005: "The session is over.",
  1006: "The connection was lost.",
  1008: "The server refused what was sent, or waited for us too long.",
  1009: "What was sent was too large.",
  1011: "The server in use failed.",
  1012: "The router is being restarted.",
  1013: "There is no room right now.",
};

const REASON_WORDS = {
  no_healthy_replica: "No streaming server is up right now.",
  queue_full: "The waiting line is full.",
  queue_timeout: "The wait took too long.",
  router_unavailable: "The router cannot place sessions right now.",
  session_rejected: "Every GPU is taken right now.",
  router_shutdown: "The router is being restarted.",
  unauthorized: "Not let in: open this page with ?ticket=… in its address. Each ticket is good once, for 30 s.",
  origin_not_allowed: "This page's address is not among those that may stream.",
  address_sessions: "Your address has as many sessions as it may have.",
  address_rate: "Your address has begun as many sessions in a minute as it may.",
  token_sessions: "Your ticket's token has as many sessions as it may have.",
  token_rate: "Your ticket's token has begun as many sessions in a minute as it may.",
};

const ERROR_WORDS = {
  session_rejected: "The replica has no free GPU",
  preset_mismatch: "The replica has another preset",
  gpu_unavailable: "The router has no replica to give",
  worker_failed: "The connection to the replica failed",
  upstream_timeout: "The replica did not answer in time",
  internal_error: "The replica could not go on",
};

// After these closes a new try makes sense.
const RETRYABLE_CODES = new Set([1001, 1006, 1011, 1012, 1013]);

export function closeInWords(code, reason) {
  const words = REASON_WORDS[reason] ?? CLOSE_WORDS[code] ?? "The session was closed.";
  return `${words} (close ${code}${reason ? `, ${reason}` : ""})`;
}

// What the server said only where nothing is said here; then it is about what this player sent.
export function errorInWords({ code, message }) {
  if (code === "session_rejected" && message.startsWith("router:")) return `The router does not let you in (${code})`;
  return `${ERROR_WORDS[code] ?? message} (${code})`;
}

export function isRetryable(code) {
  return RETRYABLE_CODES.has(code);
}

export function bytesInWords(count) {
  const units = ["B", "kB", "MB", "GB"];
  let unit = 0;
  while (count >= 1000 && unit < units.length - 1) {
    count /= 1000;
    unit += 1;
  }
  return `${unit === 0 ? count : count.toFixed(1)} ${units[unit]}`;
}

export class Story {
  constructor(list) {
    this.list = list;
    this.begin();
  }

  // The clock of the lines, from here on.
  begin() {
    this.startedAt = performance.now();
  }

  // kind: "", "good" or "bad". detail: shown on hovering. The newest line stands on top.
  tell(text, kind = "", detail = "") {
    this.list.querySelector(".idle")?.remove();
    const line = document.createElement("li");
    line.className = kind;
    const time = document.createElement("time");
    time.textContent = `${((performance.now() - this.startedAt) / 1000).toFixed(1)} s`;
    const words = document.createElement("span");
    words.textContent = text;
    if (detail) words.title = detail;
    line.append(time, words);
    this.list.prepend(line);
    while (this.list.children.length > MAX_LINES) this.list.lastElementChild.remove();
  }
}
