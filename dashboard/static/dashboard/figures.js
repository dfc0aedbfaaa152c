// The four panels under the first line: sessions, the line, openings, traffic; a number each, and its last hour.
// And the list of the processes that stand behind it all.

import { arrange, badges, byId, h, mark, show, style, write } from "./dom.js";
import { Plot } from "./plots.js";
import { slotsInUse } from "./reading.js";
import { clock, number, per, rate, several, span } from "./words.js";

const PANELS = {
  sessions: { label: "Sessions", say: number, series: [{ key: "sessions", name: "", kind: "area", tone: "ink" }] },
  waiting: { label: "Clients in the line", say: number, series: [{ key: "waiting", name: "", kind: "area", tone: "wait", hollow: true }] },
  opened: {
    label: "Sessions opened and failed a minute", say: per,
    series: [{ key: "opened", name: "opened", kind: "bars", tone: "ink" }, { key: "failed", name: "failed", kind: "bars", tone: "bad" }],
  },
  bytes: {
    label: "Bytes a second", say: rate,
    series: [{ key: "bytes_down", name: "down", kind: "area", tone: "ink" }, { key: "bytes_up", name: "up", kind: "line", tone: "soft" }],
  },
};

export class Figures {
  constructor() {
    this.plots = Object.fromEntries(Object.entries(PANELS).map(([name, panel]) => [name, new Plot(byId(`plot-${name}`), panel)]));
  }

  update(state, now) {
    const { totals, line, plots, told } = state;
    this.plots.bytes.scale = 1 / plots.step;
    for (const plot of Object.values(this.plots)) plot.show(plots);
    write(byId("sessions-now"), number(totals.sessions));
    const used = slotsInUse(state.replicas);
    write(byId("slots-now"), totals.slots === null ? "no limit" : used === totals.sessions ? `of ${several(totals.slots, "slot")}` : `${number(used)} of ${several(totals.slots, "slot")}`);
    show(byId("slots-bar"), totals.slots !== null);
    style(byId("slots-bar").firstElementChild, "width", `${totals.slots ? Math.min(100, (used / totals.slots) * 100) : 0}%`);
    mark(byId("slots-bar"), "data-full", totals.slots !== null && used >= totals.slots);
    write(byId("line-now"), number(line.length));
    mark(byId("line-now"), "data-level", line.length ? (line.length >= line.max_length ? "bad" : "wait") : "good");
    const wait = line.longest_wait === null ? null : line.longest_wait + now - told.line;
    write(byId("line-wait"), line.length && wait !== null ? `longest wait ${span(wait)} of ${span(line.timeout_seconds)}` : `of ${number(line.max_length)} that may wait`);
    write(byId("opened-now"), per(totals.opened_per_minute));
    write(byId("failed-now"), `${per(totals.failed_per_minute)} failed`);
    mark(byId("failed-now"), "data-level", totals.failed_per_minute ? "bad" : "good");
    write(byId("down-now"), rate(totals.bytes_down_per_second));
    write(byId("up-now"), `${rate(totals.bytes_up_per_second)} up`);
  }
}

export class Processes {
  constructor() {
    this.list = byId("processes");
    this.rows = new Map();
  }

  update({ prober, processes, version, told }, now) {
    const rows = [this.prober(prober, now - told.prober), ...processes.map((row) => this.router(row, now - told.processes, now))];
    arrange(this.list, rows);
    for (const id of [...this.rows.keys()]) if (id !== "prober" && !processes.some((row) => row.id === id)) this.rows.delete(id);
    write(byId("version"), version ? `version ${version}` : "");
  }

  element(id) {
    let part = this.rows.get(id);
    if (!part) {
      part = { name: h("h3", {}), marks: h("span", { class: "marks" }), facts: h("p", { class: "facts" }) };
      part.element = h("li", {}, h("div", { class: "line" }, part.name, part.marks), part.facts);
      this.rows.set(id, part);
    }
    return part;
  }

  prober({ state, holder, epoch, beat_age: age }, since) {
    const part = this.element("prober");
    const [word, kind] = { ok: ["live", "status-healthy"], stale: ["stale", "status-unhealthy"], "never ran": ["never ran", "status-unhealthy"] }[state] ?? [state, ""];
    write(part.name, "Prober");
    badges(part.marks, [[word, kind]]);
    mark(part.element, "data-level", state === "ok" ? "good" : "bad");
    write(part.facts, state === "never ran" ? "Start “manage.py runhealthchecks”." : [holder, `lease ${number(epoch)}`, age === null ? "" : `beat ${span(age + since)} ago`].filter(Boolean).join(" · "));
    return part.element;
  }

  router({ id, name, version, started_at: started, beat_age: age, state, sessions, waiting }, since, now) {
    const part = this.element(id);
    write(part.name, name);
    badges(part.marks, [[state, { live: "status-healthy", draining: "state-draining", silent: "status-unhealthy" }[state] ?? ""]]);
    mark(part.element, "data-level", { live: "good", draining: "off" }[state] ?? "wait");
    const holds = `${several(sessions, "session")}${waiting ? `, ${number(waiting)} waiting` : ""}`;
    mark(part.facts, "title", `since ${clock(started, now)}`);
    write(part.facts, [holds, `up ${span(now - started)}`, version, age === null ? "" : `beat ${span(age + since)} ago`].filter(Boolean).join(" · "));
    return part.element;
  }
}

