// The table of sessions: a page of it at a time, as the server sorts and finds them; asked for anew every 2 s.

import { arrange, badges, byId, h, later, mark, show, write } from "./dom.js";
import { ask } from "./server.js";
import { bytes, clock, number, rate, span } from "./words.js";

const REFRESH_MS = 2000;
const COLUMNS = [
  ["replica", "Replica", ""], ["client", "Client", ""], ["age", "Age", "num"], ["waited", "Waited", "num"],
  ["bytes_down", "Down", "num"], ["bytes_up", "Up", "num"], ["down_per_second", "Rate", "num"],
];
const HIGH_FIRST = ["age", "waited", "bytes_down", "bytes_up", "down_per_second"];

export class Sessions {
  constructor({ acts }) {
    this.acts = acts;
    this.rows = new Map();
    this.chosen = new Set();
    this.may = {};
    const given = new URLSearchParams(location.search);
    this.query = {
      q: given.get("q") ?? "", state: given.get("state") ?? "live", replica: given.get("replica") ?? "",
      sort: given.get("sort") ?? "-opened_at", page: Number(given.get("page")) || 1,
    };
    this.head = byId("sessions-head");
    this.body = byId("sessions-body");
    this.head.append(h("th", { role: "columnheader", scope: "col", class: "pick" }, h("span", { class: "unseen" }, "Choose")),
      ...COLUMNS.map(([field, word, kind]) => h("th", { role: "columnheader", scope: "col", class: kind, "data-field": field },
        h("button", { type: "button", onclick: () => this.sortBy(field) }, word))),
      h("th", { role: "columnheader", scope: "col", class: "end" }, h("span", { class: "unseen" }, "What to do, or how it ended")));
    byId("sessions-sort").addEventListener("change", ({ target }) => this.change({ sort: target.value }));
    byId("sessions-search").addEventListener("input", later(({ target }) => this.change({ q: target.value.trim() }), 200));
    byId("sessions-state").addEventListener("change", ({ target }) => this.change({ state: target.value }));
    byId("sessions-of").addEventListener("click", () => { this.change({ replica: "" }); byId("sessions-search").focus(); });
    byId("sessions-before").addEventListener("click", () => this.change({ page: this.query.page - 1 }, true));
    byId("sessions-after").addEventListener("click", () => this.change({ page: this.query.page + 1 }, true));
    byId("sessions-unchoose").addEventListener("click", () => this.unchoose());
    byId("sessions-disconnect").addEventListener("click", () => this.acts.disconnect([...this.chosen]));
    this.showQuery();
  }

  start() {
    this.refresh();
    this.pace = setInterval(() => { if (!document.hidden) this.refresh(); }, REFRESH_MS);
  }

  stop() {
    clearInterval(this.pace);
  }

  update({ may, replicas }) {
    this.may = may;
    const one = this.query.replica && replicas.find(({ id }) => String(id) === this.query.replica);
    show(byId("sessions-of"), Boolean(this.query.replica));
    write(byId("sessions-of"), this.query.replica ? `on ${one ? one.name : `replica ${this.query.replica}`} ×` : "");
    mark(byId("sessions-of"), "aria-label", `Show those of all replicas, not only ${one ? one.name : this.query.replica}`);
  }

  of(replica) {
    this.change({ replica: String(replica), state: "live", q: "" });
    byId("sessions-title").scrollIntoView({ block: "start" });
    byId("sessions-title").focus({ preventScroll: true });
  }

  sortBy(field) {
    const { sort } = this.query;
    const high = HIGH_FIRST.includes(field);
    const first = high ? `-${field}` : field;
    this.change({ sort: sort === first ? (high ? field : `-${field}`) : first });
  }

  change(some, samePlace = false) {
    Object.assign(this.query, samePlace ? {} : { page: 1 }, some);
    this.showQuery();
    this.busy?.abort();
    this.busy = null;
    this.refresh();
  }

  // The address of the page names what is shown, so that it can be passed on.
  showQuery() {
    const { q, state, replica, sort, page } = this.query;
    const said = Object.entries({ q, state: state === "live" ? "" : state, replica, sort: sort === "-opened_at" ? "" : sort, page: page > 1 ? page : "" });
    const search = new URLSearchParams(said.filter(([, value]) => value));
    history.replaceState(null, "", `${location.pathname}${search.size ? `?${search}` : ""}${location.hash}`);
    if (byId("sessions-search") !== document.activeElement) byId("sessions-search").value = q;
    for (const radio of byId("sessions-state").querySelectorAll("input")) radio.checked = radio.value === state;
    const choice = byId("sessions-sort");
    choice.value = [...choice.options].some(({ value }) => value === sort) ? sort : "";
    for (const head of this.head.querySelectorAll("[data-field]")) {
      const { field } = head.dataset;
      const order = { [field]: "ascending", [`-${field}`]: "descending" }[sort];
      if (order) head.setAttribute("aria-sort", order);
      else head.removeAttribute("aria-sort");
    }
    if (this.seen) this.update(this.seen);
  }

  // What the page knows of replicas and permissions.
  told(state) {
    const changed = JSON.stringify(state.may) !== JSON.stringify(this.may);
    this.seen = state;
    this.update(state);
    if (changed && this.page) this.render(this.page);
  }

  async refresh() {
    if (this.busy) return;
    const mine = (this.busy = new AbortController());
    const timer = setTimeout(() => mine.abort(new DOMException("", "TimeoutError")), 10000);
    try {
      const found = await ask(`sessions.json?${new URLSearchParams(this.query)}`, { signal: mine.signal });
      if (this.busy === mine) this.render(found);
    } catch (error) {
      if (this.busy === mine && error.name !== "AbortError") this.fail(error.message);
    } finally {
      clearTimeout(timer);
      if (this.busy === mine) this.busy = null;
    }
  }

  fail(message) {
    write(byId("sessions-range"), message);
    byId("sessions-range").dataset.old = "true";
  }

  render(found) {
    const { at, page, pages, total, rows } = found;
    this.page = found;
    this.query.page = page;
    const wanted = rows.map((row) => this.element(row, at));
    arrange(this.body, wanted);
    const present = new Set(rows.map(({ uid }) => uid));
    for (const uid of [...this.rows.keys()]) if (!present.has(uid)) this.rows.delete(uid);
    for (const row of rows) if (row.state === "ended") this.chosen.delete(row.uid);
    const before = page < pages ? (page - 1) * rows.length : total - rows.length;
    delete byId("sessions-range").dataset.old;
    write(byId("sessions-range"), rows.length ? `${number(before + 1)}–${number(before + rows.length)} of ${number(total)}` : "");
    byId("sessions-before").disabled = page <= 1;
    byId("sessions-after").disabled = page >= pages;
    show(byId("sessions-pages"), pages > 1);
    show(byId("sessions-table"), rows.length > 0);
    show(byId("sessions-none"), !rows.length);
    write(byId("sessions-none"), this.nothing());
    this.showChosen();
  }

  nothing() {
    const { q, replica, state } = this.query;
    if (q || replica) return "No session is like that.";
    return { live: "No session is live.", waiting: "Nobody waits.", ended: "None has ended yet." }[state] ?? "No session yet.";
  }

  element(row, at) {
    let made = this.rows.get(row.uid);
    if (!made) this.rows.set(row.uid, (made = this.make(row)));
    this.fill(made, row, at);
    return made.element;
  }

  make(row) {
    const cell = (kind, label, ...children) => h("td", { role: "cell", class: kind, "data-label": label }, ...children);
    const part = {
      pick: h("input", { type: "checkbox", "aria-label": `Choose ${row.uid}`, onchange: ({ target }) => this.pick(row.uid, target.checked) }),
      replica: h("span", { class: "strong" }), process: h("span", { class: "quiet" }), client: h("span", {}),
      uid: h("a", { class: "quiet uid", href: row.admin }, row.uid), marks: h("span", { class: "marks" }), sentence: h("span", { class: "sentence" }),
      drop: h("button", { type: "button", class: "act", "aria-haspopup": "dialog", "aria-label": `Disconnect ${row.uid}`, onclick: () => this.acts.disconnect([row.uid], row.uid) }, "Disconnect…"),
      numbers: COLUMNS.slice(2).map(([, word]) => cell("num", word)),
    };
    part.element = h("tr", { role: "row", "data-session": row.uid },
      cell("pick", "", part.pick), cell("", "Replica", part.replica, " ", part.process), cell("", "Client", part.client, " ", part.uid),
      ...part.numbers, cell("end", "", part.marks, part.sentence, part.drop));
    return part;
  }

  fill(part, row, at) {
    const ended = row.state === "ended";
    const may = Boolean(this.may.disconnect) && !ended && !row.disconnecting;
    write(part.replica, row.replica || (row.state === "waiting" ? "in the line" : "none"));
    write(part.process, row.process);
    write(part.client, row.client || "unknown");
    const shown = [span(row.age), span(row.waited), bytes(row.bytes_down), bytes(row.bytes_up), ended ? "" : rate(row.down_per_second)];
    shown.forEach((text, index) => write(part.numbers[index], text));
    mark(part.numbers[0], "title", `since ${clock(row.opened_at, at)}${ended ? ` to ${clock(row.ended_at, at)}` : ""}`);
    mark(part.numbers[4], "title", ended ? "" : `up: ${rate(row.up_per_second)}`);
    const said = row.close_code === null || !ended ? "" : ` (${row.close_code})`;
    write(part.sentence, row.sentence ? row.sentence + (row.sentence.includes(String(row.close_code)) ? "" : said) : "");
    badges(part.marks, row.disconnecting && !ended ? [["disconnecting", "stale"]] : row.state === "waiting" ? [["waiting", "stale"]] : []);
    show(part.drop, may);
    show(part.pick, may);
    part.pick.checked = this.chosen.has(row.uid);
  }

  pick(uid, chosen) {
    if (chosen) this.chosen.add(uid);
    else this.chosen.delete(uid);
    this.showChosen();
  }

  // Also those that have left the table since.
  unchoose() {
    this.chosen.clear();
    if (this.page) this.render(this.page);
    byId("sessions-title").focus({ preventScroll: true });
  }

  showChosen() {
    show(byId("sessions-chosen"), this.chosen.size > 0);
    write(byId("sessions-disconnect"), `Disconnect ${number(this.chosen.size)}…`);
  }

  // After an act: what was chosen is being dealt with.
  settle() {
    this.chosen.clear();
    this.showChosen();
    this.refresh();
  }
}
