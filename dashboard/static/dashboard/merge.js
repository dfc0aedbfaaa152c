// PURE. What the page knows: a snapshot, and the changes that came after it. Knows the messages of /dashboard/live.

const MOST_SAMPLES = 360; // an hour of 10 s

// The new state; `state` is null before the first snapshot. Parts that have not changed stay the same objects. `told`
// says when each part was told: the ages in it count from there.
export function merge(state, message) {
  if (message.type === "snapshot") return { ...message, told: toldAt({}, message) };
  if (!state || message.type !== "changes") return state;
  const next = { ...state, told: toldAt(state.told, message) };
  for (const [key, value] of Object.entries(message)) {
    if (!["type", "replicas", "gone", "plots"].includes(key)) next[key] = value;
  }
  if (message.replicas || message.gone) next.replicas = mergeRows(state.replicas, message.replicas ?? [], message.gone ?? []);
  if (message.plots) next.plots = message.plots.append ? append(state.plots, message.plots.append) : message.plots;
  return next;
}

function toldAt(before, message) {
  return { ...before, ...Object.fromEntries(Object.keys(message).map((key) => [key, message.at])) };
}

function mergeRows(rows, changed, gone) {
  const byId = new Map(rows.map((row) => [row.id, row]));
  for (const row of changed) byId.set(row.id, row);
  for (const id of gone) byId.delete(id);
  return [...byId.values()];
}

// One sample more. Steps that were missed are gaps: null.
function append(plots, sample) {
  const missed = plots.at === null ? 0 : Math.max(0, Math.round((sample.at - plots.at) / plots.step) - 1);
  if (plots.at !== null && sample.at <= plots.at) return plots;
  const next = { ...plots, at: sample.at };
  for (const key of Object.keys(sample)) {
    if (key === "at") continue;
    const gap = new Array(Math.min(missed, MOST_SAMPLES)).fill(null);
    next[key] = [...(plots[key] ?? []), ...gap, sample[key]].slice(-MOST_SAMPLES);
  }
  return next;
}
