// The dialog in which operators act: it asks the server what an act will do, shows that, and does it when confirmed.
// One <dialog> for all: its steps are lists of elements. Escape and Cancel leave everything as it is.

import { byId, h, later, show, write } from "./dom.js";
import { act } from "./server.js";
import { number, several } from "./words.js";

const DEFAULT_REASON = "disconnected by an operator";

// What may be done to a replica, each only where it makes sense. `needs`: a key of the snapshot's `may`;
// who may drain may also take a drain back.
const ACTS = [
  { what: "drain", word: "Drain", needs: "drain", when: ({ state }) => state === "active", means: "Takes no new session; those it has go on, to a deadline if you give one." },
  { what: "drain", word: "Change deadline", needs: "drain", when: ({ state }) => state === "draining", means: "How long the sessions that are left may go on." },
  { what: "activate", word: "Activate", needs: "edit", alsoBy: ({ state }) => (state === "draining" ? "drain" : ""), when: ({ state }) => state !== "active", means: "Takes sessions again, as soon as it is healthy." },
  { what: "make_primary", word: "Make primary", needs: "edit", when: ({ primary }) => !primary, means: "Is filled first. The mark moves here from where it is." },
  { what: "probe_now", word: "Probe now", needs: "edit", when: ({ state }) => state !== "disabled", means: "Asks for its health at once, not at the next turn." },
  { what: "disable", word: "Disable", needs: "edit", when: ({ state }) => state !== "disabled", means: "Takes no new session, and is not probed any more." },
];

export function actsFor(row, may) {
  return row.deleted ? [] : ACTS.filter(({ needs, alsoBy, when }) => (may[needs] || may[alsoBy?.(row)]) && when(row));
}

export class Acts {
  // rowOf(id): the replica as it is now. done(said): after an act.
  constructor({ rowOf, done }) {
    this.rowOf = rowOf;
    this.done = done;
    this.dialog = byId("dialog");
    this.title = byId("dialog-title");
    this.body = byId("dialog-body");
    this.asked = 0;
    this.dialog.addEventListener("close", () => {
      this.asked += 1;
      this.progress = null;
      this.body.replaceChildren();
    });
  }

  open(title, ...elements) {
    write(this.title, title);
    this.progress = null;
    this.body.replaceChildren(...elements);
    if (!this.dialog.open) this.dialog.showModal();
    (this.body.querySelector("[data-first]") ?? this.body.querySelector("button, input"))?.focus();
  }

  close = () => this.dialog.close();

  // --- a replica ---

  choose(row, may) {
    const choices = actsFor(row, may).map((one) =>
      h("li", {}, h("button", { type: "button", class: "choice", onclick: () => this.prepare(one, row, may) },
        h("strong", {}, one.word), h("span", {}, one.means))));
    this.open(row.name, h("ul", { class: "choices" }, ...choices),
      h("p", { class: "buttons" }, h("button", { type: "button", onclick: this.close }, "Cancel")));
  }

  prepare({ what, word }, row, may) {
    const body = () => ({ what, replica: row.id, ...(what === "drain" ? { deadline_seconds: deadline() } : {}) });
    const own = row.drain_deadline_seconds;
    const field = h("input", {
      id: "deadline", type: "number", min: 0, step: "any", inputmode: "numeric", placeholder: own === null ? "none" : own, "aria-describedby": "deadline-help",
      value: own ?? "", oninput: later(() => this.preview(body()), 250),
    });
    const deadline = () => (field.value.trim() === "" ? null : Number(field.value));
    const fields = what !== "drain" ? [] : [
      h("label", { for: "deadline" }, "Deadline in seconds"), field,
      h("p", { class: "help", id: "deadline-help" }, "Sessions left after it are closed with 1012. " + (own === null ? "Empty: they go on to their end." : `Empty: the replica's own, ${own} s.`)),
    ];
    const after = what === "drain" ? () => this.watch(row.id) : this.close;
    this.confirm(`${word}: ${row.name}`, fields, { word, body, after, back: () => this.choose(this.rowOf(row.id) ?? row, may) });
  }

  // A drain that was begun, until nobody is left or the operator has seen enough.
  watch(id) {
    const row = this.rowOf(id);
    if (!row?.sessions) {
      this.close();
      return;
    }
    const from = row.sessions;
    let begun = false; // the answer comes before the news
    const bar = h("progress", { max: from, value: 0, "aria-labelledby": "left" });
    const left = h("p", { id: "left", class: "said" });
    this.open(`${row.name} drains`, left, bar,
      h("p", { class: "help" }, "It goes on by itself; this window may be closed."),
      h("p", { class: "buttons" }, h("button", { type: "button", "data-first": true, onclick: this.close }, "Close")));
    this.progress = () => {
      const now = this.rowOf(id);
      const still = now?.sessions ?? 0;
      bar.value = Math.max(0, from - still);
      begun ||= now?.state === "draining";
      const ended = begun && now && now.state !== "draining" && !now.deleted;
      write(left, ended ? `It is ${now.state} again; ${several(still, "session")} here.` : still ? `${number(still)} of ${number(from)} left` : "No session left: it has drained.");
    };
    this.progress();
  }

  // Called after every message.
  update() {
    this.progress?.();
  }

  // --- sessions ---

  disconnect(uids, name) {
    const reason = h("input", { id: "reason", value: DEFAULT_REASON, maxlength: 123, autocomplete: "off", "aria-describedby": "reason-help", oninput: later(() => this.preview(body()), 250) });
    const body = () => ({ what: "disconnect", sessions: uids, reason: reason.value.trim() });
    const fields = [
      h("label", { for: "reason" }, "Reason"), reason,
      h("p", { class: "help", id: "reason-help" }, "Its client hears 1012 and these words; at most 123 bytes."),
    ];
    const title = uids.length === 1 ? `Disconnect ${name}` : `Disconnect ${number(uids.length)} sessions`;
    this.confirm(title, fields, { word: "Disconnect", body, after: this.close, harsh: true });
  }

  // --- asking first ---

  confirm(title, fields, { word, body, after, back, harsh }) {
    this.said = h("p", { class: "said", role: "status" }, "Asking what it will do…");
    this.wrong = h("p", { class: "wrong", role: "alert", hidden: true });
    this.go = h("button", { type: "submit", class: harsh ? "harsh" : "main", disabled: true }, word);
    const form = h("form", { novalidate: true, onsubmit: (event) => { event.preventDefault(); this.commit(body(), after); } },
      ...fields, this.said, this.wrong,
      h("p", { class: "buttons" },
        back ? h("button", { type: "button", onclick: back }, "Back") : null,
        h("button", { type: "button", onclick: this.close, "data-first": !fields.length }, "Cancel"), this.go));
    this.open(title, form);
    this.preview(body());
  }

  async preview(body) {
    const mine = (this.asked += 1);
    try {
      const said = await act({ ...body, ask: true });
      if (mine !== this.asked) return;
      write(this.said, said);
      this.refuse("");
    } catch (error) {
      if (mine === this.asked) this.refuse(error.message);
    }
  }

  async commit(body, after) {
    if (this.go.disabled) return;
    const mine = (this.asked += 1);
    this.go.disabled = true;
    try {
      const said = await act(body);
      this.done(said);
      if (mine === this.asked) after();
    } catch (error) {
      if (mine === this.asked) this.refuse(error.message);
      else this.done(error.message);
    }
  }

  // What the server does not do is said where the act would have been; "" when there is nothing against it.
  refuse(message) {
    this.go.disabled = Boolean(message);
    show(this.said, !message);
    show(this.wrong, Boolean(message));
    write(this.wrong, message);
  }
}
