// Drawings in SVG: a plot of an hour with a line that reads it, and the small one of a replica's latency.

import { h, mark, s, style, write } from "./dom.js";
import { clock, milliseconds } from "./words.js";

const HOUR = 3600;
const SPARK_SECONDS = 1800;

// The smallest round number that is not below `value`; for a whole number, a whole one.
export function niceTop(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map((step) => step * power).find((top) => top >= value * 0.999);
}

// series: [{key, name, kind: "area" | "line" | "bars", tone}], the values of which are drawn as they are, times `scale`.
// `say` puts a value into words. Of a `hollow` one nothing is drawn where it is 0. Bars are sums of whole minutes.
export class Plot {
  constructor(place, { label, series, say, scale = 1 }) {
    Object.assign(this, { series, say, scale, plots: null, chosen: null });
    this.top = h("span", { class: "plot-top" });
    this.drawing = s("g");
    this.reader = s("line", { class: "reader", y1: 0, y2: "100%" });
    this.svg = s("svg", {
      class: "plot", role: "slider", tabindex: 0, "aria-label": `${label} over the last hour`, "aria-valuemin": 0, "aria-valuemax": 0,
      "aria-valuenow": 0,
    }, s("line", { class: "grid", x1: 0, y1: 0.5, x2: "100%", y2: 0.5 }), this.drawing, this.reader);
    this.said = h("p", { class: "plot-said" });
    place.append(this.top, this.svg, this.said);
    this.svg.addEventListener("pointermove", ({ offsetX }) => this.choose(Math.round((offsetX / this.width) * (this.length - 1))));
    this.svg.addEventListener("pointerleave", () => this.choose(null));
    this.svg.addEventListener("blur", () => this.choose(null));
    this.svg.addEventListener("keydown", (event) => this.pressed(event));
    new ResizeObserver(() => this.draw()).observe(this.svg);
  }

  pressed(event) {
    const end = this.length - 1;
    const from = this.chosen ?? end;
    const to = { ArrowLeft: from - 1, ArrowRight: from + 1, ArrowDown: from - 1, ArrowUp: from + 1, PageDown: from - 30, PageUp: from + 30, Home: 0, End: end }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.choose(Math.min(end, Math.max(0, to)));
  }

  show(plots) {
    if (plots === this.plots) return;
    this.plots = plots;
    this.draw();
  }

  get length() {
    return HOUR / (this.plots?.step ?? 10) + 1;
  }

  // The sample that stands at the nth place of the hour, or undefined.
  value(key, place) {
    const values = this.plots?.[key] ?? [];
    return values[values.length - this.length + place];
  }

  draw() {
    this.width = this.svg.clientWidth;
    this.height = this.svg.clientHeight;
    if (!this.plots || !this.width) return;
    const drawn = this.series.map((one) => (one.kind === "bars" ? this.minutes(one.key) : this.points(one.key, one.hollow)));
    const most = Math.max(0, ...drawn.flat().map(([, value]) => value ?? 0));
    const top = niceTop(most);
    const y = (value) => this.height - (value / top) * (this.height - 4);
    this.drawing.replaceChildren(...this.series.flatMap((one, index) => this.shapes(one, drawn[index], y)));
    write(this.top, most > 0 ? this.say(top) : "");
    mark(this.svg, "aria-valuemax", this.length - 1);
    this.tell();
  }

  x(place) {
    return (place / (this.length - 1)) * this.width;
  }

  points(key, hollow) {
    return Array.from({ length: this.length }, (_, place) => {
      const value = this.value(key, place);
      return [this.x(place), value === null || value === undefined || (hollow && !value) ? null : value * this.scale];
    });
  }

  // [left, sum, right] of whole minutes of the clock, so that a bar stays as it is while it moves.
  minutes(key) {
    const { at, step } = this.plots;
    const sums = new Map();
    for (let place = 0; place < this.length; place += 1) {
      const value = this.value(key, place);
      if (value === null || value === undefined) continue;
      const minute = Math.floor((at - (this.length - 1 - place) * step - 1) / 60);
      sums.set(minute, (sums.get(minute) ?? 0) + value);
    }
    const x = (time) => ((time - (at - HOUR)) / HOUR) * this.width;
    return [...sums].map(([minute, sum]) => [Math.max(0, x(minute * 60)), sum, Math.min(this.width, x(minute * 60 + 60))]);
  }

  shapes({ kind, tone }, points, y) {
    if (kind === "bars") {
      return points.filter(([, value]) => value > 0).map(([left, value, right]) =>
        s("rect", { class: `bar-${tone}`, x: left, y: y(value), width: Math.max(1, right - left - 1), height: this.height - y(value) }));
    }
    const runs = runsOf(points);
    const line = runs.map((run) => `M${run.map(([x, value]) => `${x.toFixed(1)} ${y(value).toFixed(1)}`).join("L")}`).join("");
    const shapes = [s("path", { class: `line-${tone}`, d: line })];
    if (kind === "area") {
      const area = runs.map((run) => `M${run[0][0].toFixed(1)} ${this.height}L${run.map(([x, value]) => `${x.toFixed(1)} ${y(value).toFixed(1)}`).join("L")}L${run.at(-1)[0].toFixed(1)} ${this.height}Z`).join("");
      shapes.unshift(s("path", { class: `area-${tone}`, d: area }));
    }
    return shapes;
  }

  choose(place) {
    this.chosen = place;
    this.tell();
  }

  // What stands below the plot: its span, or what was read off it.
  tell() {
    const place = this.chosen ?? this.length - 1;
    style(this.svg, "--read", this.chosen === null ? 0 : 1);
    this.reader.setAttribute("transform", `translate(${this.x(place).toFixed(1)} 0)`);
    mark(this.svg, "aria-valuenow", place);
    const words = this.words(place);
    mark(this.svg, "aria-valuetext", words);
    write(this.said, this.chosen === null ? "last hour" : words);
  }

  words(place) {
    if (!this.plots || this.plots.at === null) return "no sample yet";
    const { at, step } = this.plots;
    const values = this.series.map(({ key, name }) => {
      const value = this.value(key, place);
      return value === null || value === undefined ? null : `${name} ${this.say(value * this.scale)}`;
    });
    const said = values.every((value) => value === null) ? "no sample" : values.filter(Boolean).join(", ");
    return `${clock(at - (this.length - 1 - place) * step, at)} ${said}`;
  }
}

// Stretches without a gap.
function runsOf(points) {
  const runs = [];
  let run = null;
  for (const [x, value] of points) {
    if (value === null) run = null;
    else {
      if (!run) runs.push((run = []));
      run.push([x, value]);
    }
  }
  return runs;
}

// 30 minutes of [time, ms or null]: a line, and a mark at the foot for each probe that failed.
export function spark(svg, latencies, now) {
  const [width, height] = [120, 24];
  const recent = latencies.filter(([at]) => at > now - SPARK_SECONDS);
  const measured = recent.map(([, ms]) => ms).filter((ms) => ms !== null);
  const top = niceTop(Math.max(0, ...measured));
  const x = (at) => ((at - now + SPARK_SECONDS) / SPARK_SECONDS) * width;
  const runs = runsOf(recent.map(([at, ms]) => [x(at), ms]));
  const path = runs.map((run) => `M${run.map(([at, ms]) => `${at.toFixed(1)} ${(height - 3 - (ms / top) * (height - 6)).toFixed(1)}`).join("L")}${run.length === 1 ? "h1.5" : ""}`).join("");
  const failed = recent.filter(([, ms]) => ms === null);
  svg.replaceChildren(
    s("path", { class: "line-ink", d: path }),
    ...failed.map(([at]) => s("rect", { class: "bar-bad", x: Math.max(0, x(at) - 1.5), y: height - 5, width: 2, height: 5 })),
  );
  const between = measured.length ? `${milliseconds(Math.min(...measured))} to ${milliseconds(Math.max(...measured))}` : "none measured";
  mark(svg, "aria-label", `Latency in 30 min: ${between}, ${failed.length} failed`);
}
