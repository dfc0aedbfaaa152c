// The list of replicas: rows on a wide screen, cards on a narrow one. Each is made once and then only written to.

import { actsFor } from "./acts.js";
import { arrange, badges, byId, h, mark, s, show, style, write } from "./dom.js";
import { spark } from "./plots.js";
import { isFull, LEVELS, levelOf, marksOf } from "./reading.js";
import { milliseconds, number, several, span } from "./words.js";

const FEW = 20; // so many are shown as they were configured; of more, first those that ask for attention
const SEGMENTS = 40; // slots that are still told apart in a bar

export class Replicas {
  constructor({ acts, sessionsOf }) {
    Object.assign(this, { acts, sessionsOf, rows: new Map(), all: false, only: "all", text: "", state: null });
    this.list = byId("replicas");
    this.more = byId("replicas-more");
    this.more.addEventListener("click", () => { this.all = !this.all; this.render(this.now); });
    byId("replicas-search").addEventListener("input", ({ target }) => { this.text = target.value.trim().toLowerCase(); this.render(this.now); });
    byId("replicas-only").addEventListener("change", ({ target }) => { this.only = target.value; this.render(this.now); });
  }

  update(state, now) {
    this.state = state;
    this.render(now);
  }

  render(now) {
    this.now = now;
    if (!this.state) return;
    const { replicas } = this.state;
    const many = replicas.length > FEW;
    show(byId("replicas-tools"), many);
    let wanted = replicas;
    if (many) {
      wanted = replicas.filter((row) => this.matches(row, now)).map((row) => [LEVELS.indexOf(levelOf(row, now)), row])
        .sort(([one], [other]) => one - other).map(([, row]) => row);
    }
    const found = wanted.length;
    if (many && !this.all) wanted = wanted.slice(0, FEW);
    arrange(this.list, wanted.map((row) => this.element(row, now)));
    const present = new Set(replicas.map(({ id }) => id));
    for (const id of [...this.rows.keys()]) if (!present.has(id)) this.rows.delete(id);
    show(this.more, found > FEW);
    write(this.more, this.all ? `Show ${FEW}` : `Show all ${number(found)}`);
    show(byId("replicas-none"), !found);
    write(byId("replicas-none"), replicas.length ? "No replica is like that." : "There is no replica yet. Add one in the admin; its address is all that it takes.");
    write(byId("replicas-count"), String(replicas.length ? number(replicas.length) : ""));
  }

  matches(row, now) {
    const level = levelOf(row, now);
    const kind = this.only === "all" || (this.only === "trouble" ? level === "bad" || level === "wait" : row.state !== "active");
    return kind && (!this.text || `${row.name} ${row.url} ${row.last_error}`.toLowerCase().includes(this.text));
  }

  element(row, now) {
    let made = this.rows.get(row.id);
    if (!made) this.rows.set(row.id, (made = this.make(row)));
    this.fill(made, row, now);
    return made.element;
  }

  make(row) {
    const part = {
      name: h("a", { href: `${document.body.dataset.base}replicas/${row.id}/` }), primary: h("span", { class: "mark" }, "★ primary"),
      url: h("span", { class: "address" }), marks: h("p", { class: "marks" }), since: h("span", { class: "since" }),
      error: h("p", { class: "error" }), bar: h("span", { class: "bar", "aria-hidden": true }, h("i")), used: h("button", { type: "button", class: "used count", onclick: () => this.sessionsOf(row.id) }),
      note: h("span", { class: "note" }), spark: s("svg", { class: "spark", viewBox: "0 0 120 24", preserveAspectRatio: "none", role: "img" }),
      latency: h("span", { class: "count" }), act: h("button", { type: "button", class: "act", "aria-haspopup": "dialog", onclick: () => this.acts.choose(this.latest(row.id), this.state.may) }, "Act…"),
    };
    part.element = h("li", { class: "replica", "data-replica": row.id },
      h("div", { class: "who" }, h("h3", {}, part.name, " ", part.primary), part.url),
      h("div", { class: "how" }, h("div", { class: "line" }, part.marks, part.since), part.error),
      h("div", { class: "full" }, part.bar, h("span", { class: "figures" }, part.used, part.note)),
      h("div", { class: "fast" }, part.spark, part.latency),
      h("div", { class: "do" }, part.act));
    return part;
  }

  latest(id) {
    return this.state.replicas.find((row) => row.id === id);
  }

  fill(part, row, now) {
    if (part.row !== row) {
      write(part.name, row.name);
      show(part.primary, row.primary);
      write(part.url, row.url);
      show(part.error, Boolean(row.last_error));
      write(part.error, row.last_error);
      write(part.used, row.slots === null ? number(row.sessions) : `${number(row.sessions)} of ${number(row.slots)}`);
      mark(part.used, "aria-label", `${several(row.sessions, "session")} on ${row.name}${row.slots === null ? ", no limit" : ` of ${several(row.slots, "slot")}`}: show them`);
      show(part.bar, row.slots !== null);
      style(part.bar, "--slots", Math.min(row.slots ?? 1, SEGMENTS));
      part.bar.classList.toggle("fine", (row.slots ?? 0) > SEGMENTS);
      style(part.bar.firstChild, "width", `${row.slots ? Math.min(100, (row.sessions / row.slots) * 100) : 0}%`);
      write(part.note, note(row));
      write(part.latency, milliseconds(row.latency_ms));
      mark(part.act, "aria-label", `Act on ${row.name}`);
    }
    const level = levelOf(row, now);
    mark(part.element, "data-level", level);
    mark(part.bar, "data-full", isFull(row, now));
    badges(part.marks, marksOf(row, now));
    write(part.since, row.status_since === null || row.deleted ? "" : `for ${span(now - row.status_since)}`);
    show(part.act, actsFor(row, this.state.may).length > 0);
    const drawn = `${Math.floor(now / 30)} ${row.latencies.at(-1)}`; // it changes only when one of the two does
    if (part.drawn !== drawn) spark(part.spark, row.latencies, now);
    part.drawn = drawn;
    part.row = row;
  }
}

function note(row) {
  if (row.deleted || row.state === "draining") {
    const end = row.drain_deadline_seconds === null || !row.sessions || row.deleted ? "" : `, closed after ${span(row.drain_deadline_seconds)}`;
    return `${number(row.sessions)} left${end}`;
  }
  if (row.slots === null) return "no limit";
  return row.weight !== 1 ? `weight ${number(row.weight)}` : "";
}
