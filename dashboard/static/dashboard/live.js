// What the router says, as it says it: its WebSocket, and polling while there is none. Knows no element of the page.

import { merge } from "./merge.js";

const STALE_SECONDS = 5;
const HUNG_SECONDS = 10; // the server says something every 2 s: a socket that is silent for so long is none
const POLL_MS = 2000;
const FIRST_MS = 500;
const LONGEST_MS = 15000;
const NOT_STAFF = 4403;

export class Live {
  // changed(state) after every message; felt(feed) when the feed is another: "connecting", "live", "polling", "stale"
  // or "signed out".
  constructor(base, { changed, felt }) {
    this.base = base;
    this.changed = changed;
    this.felt = felt;
    this.state = null;
    this.feed = "connecting";
    this.heardAt = performance.now();
    this.attempt = 0;
    this.polling = false;
    this.retrying = 0;
    this.ended = false;
  }

  start() {
    this.connect();
    this.pace = setInterval(() => this.look(), 500);
    this.polls = setInterval(() => this.poll(), POLL_MS);
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden && this.silence() > STALE_SECONDS) this.again();
    });
  }

  // The server's time now, in Unix seconds, however wrong the clock of this machine is.
  now() {
    return this.state ? this.state.at + this.silence() : Date.now() / 1000;
  }

  // Seconds since the last word.
  silence() {
    return (performance.now() - this.heardAt) / 1000;
  }

  connect() {
    clearTimeout(this.retrying);
    this.retrying = 0;
    if (this.ended) return;
    const address = new URL("live", new URL(this.base, location.href));
    address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(address);
    this.socket = socket;
    this.openedAt = performance.now();
    const current = (handler) => (event) => { if (socket === this.socket) handler(event); };
    socket.addEventListener("message", current(({ data }) => this.hear(JSON.parse(data), "live")));
    socket.addEventListener("close", current(({ code }) => this.closed(code)));
  }

  closed(code) {
    this.socket = null;
    if (code === NOT_STAFF) {
      this.signedOut();
      return;
    }
    const step = Math.min(LONGEST_MS, FIRST_MS * 2 ** this.attempt);
    this.attempt += 1;
    this.retrying = setTimeout(() => this.connect(), step / 2 + Math.random() * (step / 2));
    this.poll();
  }

  // A new socket at once, in the place of one that may be dead.
  again() {
    if (this.ended) return;
    const old = this.socket;
    this.socket = null;
    if (old) old.close();
    this.connect();
  }

  hear(message, by) {
    if (by === "live") this.attempt = 0;
    this.heardAt = performance.now();
    this.state = merge(this.state, message);
    this.feel(by);
    if (this.state) this.changed(this.state);
  }

  look() {
    if (this.ended) return;
    if (this.silence() > STALE_SECONDS) this.feel("stale");
    const hung = this.socket && Math.min(this.silence(), (performance.now() - this.openedAt) / 1000) > HUNG_SECONDS;
    if (hung) this.again();
  }

  async poll() {
    const heard = this.socket?.readyState === WebSocket.OPEN && this.silence() <= STALE_SECONDS;
    if (heard || this.polling || this.ended || document.hidden) return;
    this.polling = true;
    try {
      const answer = await fetch(new URL("state.json", new URL(this.base, location.href)), { signal: AbortSignal.timeout(5000) });
      if (answer.status === 403) this.signedOut();
      else if (answer.ok) {
        const state = await answer.json();
        const overtaken = this.socket?.readyState === WebSocket.OPEN && this.silence() <= STALE_SECONDS;
        if (!overtaken && !this.ended) this.hear(state, "polling");
      }
    } catch {
      // Not to be had either: the page turns stale, and goes on trying.
    } finally {
      this.polling = false;
    }
  }

  signedOut() {
    this.ended = true;
    clearInterval(this.pace);
    clearInterval(this.polls);
    clearTimeout(this.retrying);
    this.socket?.close();
    this.feel("signed out");
  }

  feel(feed) {
    if (this.feed === feed) return;
    this.feed = feed;
    this.felt(feed);
  }
}
