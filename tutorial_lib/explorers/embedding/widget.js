// Embedding explorer: a step as the tips of dim/2 hands that turn at different speeds.

/** @import { View } from "../shared/types" */
/** @import { EmbeddingExplorerTraits } from "../shared/traits" */

import { FONT } from "../shared/chart.js";
import { clamp, short, ticks } from "../shared/numbers.js";
import { element, offscreen, ramp } from "../shared/pixels.js";
import { Stage } from "../shared/stage.js";
import { DIM_MAX, DIM_MIN, PERIOD_MAX, PERIOD_MIN, TITLES } from "../shared/wire.js";

const AROUND = 50; // steps shown on each side of t
const ROWS = 256; // of the heat map, at most
const DIALS = 8;

/**
 * How far hand i turns in a step, in radians: base^(-i / (dim/2)), float64.
 * @param {number} dim
 * @param {number} base
 */
export function speeds(dim, base) {
  const half = dim / 2;
  return Float64Array.from({ length: half }, (_, i) => Math.exp((-Math.log(base) * i) / half));
}

/**
 * The embedding of step t into `out`: all sines, then all cosines.
 * @param {Float32Array} out
 * @param {number} t
 * @param {Float64Array} hands
 */
export function embed(out, t, hands) {
  for (let i = 0; i < hands.length; i++) {
    out[i] = Math.sin(t * hands[i]);
    out[hands.length + i] = Math.cos(t * hands[i]);
  }
}

/**
 * The similarity of two steps by their distance 0..steps: the mean of cos(distance x speed).
 * @param {number} steps
 * @param {Float64Array} hands
 */
export function similarity(steps, hands) {
  const found = new Float64Array(steps + 1);
  for (let d = 0; d <= steps; d++) {
    let sum = 0;
    for (const speed of hands) sum += Math.cos(d * speed);
    found[d] = sum / hands.length;
  }
  return found;
}

/** @param {View<EmbeddingExplorerTraits>} view */
export function render({ model, el }) {
  const stage = new Stage({ model, el }, TITLES.embedding);
  const T = model.get("num_steps");

  stage.timestep({ name: "t", range: () => [0, T], seconds: 12, spoken: () => sentence() });
  const row = stage.row();
  stage.slider({
    label: "dim",
    name: "dim",
    min: DIM_MIN,
    max: DIM_MAX,
    step: 2,
    place: row,
    text: String,
    spoken: (v) => `${v} entries, ${v / 2} hands`,
  });
  stage.slider({
    label: "base (max_period)",
    name: "max_period",
    min: Math.log10(PERIOD_MIN),
    max: Math.log10(PERIOD_MAX),
    step: 0.05,
    place: row,
    toValue: (x) => Math.round(10 ** x),
    toPosition: (v) => Math.log10(v),
    text: (v) => short(v, 5),
    spoken: (v) => `base ${short(v, 5)}`,
  });
  stage.toggle({ label: `only the ${2 * AROUND} steps around t`, name: "near", place: row });
  const say = stage.line();

  const box = stage.panels();
  const [left, right] = [element("div"), element("div")];
  box.append(left, right);
  const bars = stage.chart({
    width: 396,
    height: 132,
    place: left,
    x: [0, 64],
    y: [-1, 1],
    yTicks: [-1, 0, 1],
    margins: [6, 10, 20, 42],
    caption: "the embedding of t: tips of the hands",
  });
  const map = stage.chart({
    width: 396,
    height: 212,
    place: left,
    x: [0, 64],
    y: [0, T],
    xLabel: "entry (fast hands first in each half)",
    margins: [6, 10, 34, 42],
    caption: "the embedding of every step, a row each: −1 dark, +1 light",
  });
  const curve = stage.chart({
    width: 396,
    height: 202,
    place: right,
    x: [0, T],
    y: [-1, 1],
    xLabel: "step s",
    caption: "similarity of step t to step s",
  });
  const dials = stage.chart({
    width: 396,
    height: 118,
    place: right,
    x: [0, DIALS],
    y: [0, 1],
    xTicks: [],
    yTicks: [],
    margins: [0, 0, 0, 0],
    caption: "some hands: number above, steps of a turn below",
  });
  const picture = offscreen(1, 1);

  let hands = new Float64Array(0);
  let similar = hands;
  let shown = hands; // the steps that the charts show
  let computedFor = "";
  let paintedFor = "";
  const entries = new Float32Array(DIM_MAX);
  const at = () => clamp(stage.get("t"), 0, T);
  /** The first and last step shown. */
  function span() {
    if (!stage.get("near") || 2 * AROUND >= T) return [0, T];
    const first = clamp(at() - AROUND, 0, T - 2 * AROUND);
    return [first, first + 2 * AROUND];
  }
  function sentence() {
    const t = at();
    const far = [1, 10, 100].filter((d) => t + d <= T);
    const ahead = far.map((d) => `${similar[d].toFixed(3)} to t + ${d}`).join(", ");
    return `t = ${t} of ${T}: similarity ${ahead || `${similar[1].toFixed(3)} to t − 1`}`;
  }
  stage.computesFirst(() => {
    const [dim, base] = [stage.get("dim"), stage.get("max_period")];
    const wanted = `${dim} ${base}`;
    if (wanted === computedFor) return;
    computedFor = wanted;
    hands = speeds(dim, base);
    similar = similarity(T, hands);
    for (const chart of [bars, map]) {
      chart.x = [0, dim];
      chart.xTicks = [
        [0, "0"],
        [dim / 4, "sine"],
        [dim / 2, String(dim / 2)],
        [(3 * dim) / 4, "cosine"],
        [dim, String(dim)],
      ];
      chart.invalidate();
    }
    const least = similar.reduce((x, y) => Math.min(x, y));
    curve.y = [[0, -0.25, -0.5].find((low) => low <= least) ?? -1, 1];
    curve.invalidate();
  });

  /**
   * Draws the heat map of the steps first..last into the background of its chart.
   * @param {number} first
   * @param {number} last
   */
  function paintMap(first, last) {
    const dim = 2 * hands.length;
    const rows = Math.min(last - first + 1, ROWS);
    picture.resize(dim, rows);
    for (let r = 0; r < rows; r++) {
      embed(entries, Math.round(last - (r / (rows - 1)) * (last - first)), hands);
      for (let i = 0; i < dim; i++) ramp(picture.data, 4 * (r * dim + i), (entries[i] + 1) / 2);
    }
    picture.put();
  }
  map.background = (context) => {
    const { left, top, right, bottom } = map.box;
    context.imageSmoothingEnabled = false;
    context.drawImage(picture.canvas, left, top, right - left, bottom - top);
    context.strokeStyle = stage.theme.paper;
    context.lineWidth = 2;
    map.segment(context, (left + right) / 2, top, (left + right) / 2, bottom);
  };

  /** @param {boolean} full */
  function paintBars(full) {
    const dim = 2 * hands.length;
    bars.frame(full, (c) => {
      const width = bars.px(1) - bars.px(0);
      const zero = bars.py(0);
      for (let i = 0; i < dim; i++) {
        c.fillStyle = stage.theme.curves[i < dim / 2 ? 0 : 1];
        const y = bars.py(entries[i]);
        const top = Math.min(y, zero);
        c.fillRect(bars.px(i) + 0.1 * width, top, 0.8 * width, Math.abs(y - zero));
      }
      c.strokeStyle = stage.theme.ink;
      c.lineWidth = 1;
      bars.segment(c, bars.px(0), zero, bars.px(dim), zero);
      bars.segment(c, bars.px(dim / 2), bars.box.top, bars.px(dim / 2), bars.box.bottom);
    });
  }

  /**
   * @param {boolean} full
   * @param {number[]} which hands
   */
  function paintDials(full, which) {
    dials.frame(full, (c) => {
      const radius = 22;
      const y = 42;
      c.font = FONT;
      c.textAlign = "center";
      for (const [k, i] of which.entries()) {
        const x = dials.px(k + 0.5);
        c.strokeStyle = stage.theme.ink;
        c.lineWidth = 1;
        c.beginPath();
        c.arc(x, y, radius, 0, 2 * Math.PI);
        c.stroke();
        // The tip is (sine, cosine): up at t = 0, and clockwise from there.
        const [sine, cosine] = [entries[i], entries[hands.length + i]];
        c.strokeStyle = stage.theme.curves[0];
        c.lineWidth = 2.5;
        dials.segment(c, x, y, x + (radius - 3) * sine, y - (radius - 3) * cosine);
        c.fillStyle = stage.theme.ink;
        c.textBaseline = "bottom";
        c.fillText(String(i), x, y - radius - 3);
        c.textBaseline = "top";
        const turn = Number(((2 * Math.PI) / hands[i]).toPrecision(2));
        c.fillText(short(turn, 5), x, y + radius + 4);
      }
    });
  }

  stage.paints(["t", "dim", "max_period", "near"], (full) => {
    const t = at();
    const [first, last] = span();
    const dim = 2 * hands.length;
    const wanted = `${computedFor} ${first} ${last}`;
    if (wanted !== paintedFor) {
      paintedFor = wanted;
      paintMap(first, last);
      map.y = [first - 0.5, last + 0.5];
      map.yTicks = ticks(first, last, 4);
      curve.x = [first, last];
      map.invalidate();
      curve.invalidate();
      shown = Float64Array.from({ length: last - first + 1 }, (_, i) => first + i);
    }
    embed(entries, t, hands);
    paintBars(full);
    map.frame(full, (c) => {
      const { left, right } = map.box;
      const y = map.py(t);
      // A line in two colors is seen on every ground.
      for (const [width, color] of /** @type {const} */ ([
        [4, stage.theme.paper],
        [1.6, stage.theme.ink],
      ])) {
        c.strokeStyle = color;
        c.lineWidth = width;
        map.segment(c, left, y, right, y);
      }
    });
    curve.frame(full, (c) => {
      curve.curve(
        c,
        shown,
        shown.map((s) => similar[Math.abs(s - t)]),
        0,
      );
      curve.marker(c, t);
      curve.dot(c, t, 1);
    });
    const count = Math.min(DIALS, hands.length);
    const which = Array.from({ length: count }, (_, k) =>
      Math.round((k / Math.max(1, count - 1)) * (hands.length - 1)),
    );
    paintDials(full, which);
    const text = sentence();
    const range = `steps ${first} to ${last}`;
    const half = dim / 2;
    say(text);
    bars.describe(`${dim} bars, ${half} sines and ${half} cosines, the embedding of t = ${t}.`);
    map.describe(
      `Heat map of the embeddings of ${range}, ${dim} entries each, the row of t = ${t} marked: ` +
        "entries of fast hands flicker from row to row, those of slow ones hardly change.",
    );
    curve.describe(`Similarity of t = ${t} to ${range}: 1 at t itself. ${text}`);
    const turns = which.map((i) => short((2 * Math.PI) / hands[i], 2)).join(", ");
    dials.describe(
      `Clocks of the hands ${which.join(", ")} at t = ${t}; a turn takes ${turns} steps.`,
    );
  });
  return () => stage.end();
}

export default { render };
