// Forward explorer: x_t = sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) eps for a batch, as one drags t.

/** @import { Numbers, View } from "../shared/types" */
/** @import { ForwardExplorerTraits } from "../shared/traits" */

import { FONT } from "../shared/chart.js";
import {
  clamp,
  largest,
  moments,
  normalNumbers,
  short,
  toInt16,
  typedArray,
} from "../shared/numbers.js";
import { paintImage } from "../shared/pixels.js";
import { Stage } from "../shared/stage.js";
import { ALL, EPS_SCALE, GRAYS_PER_UNIT, TITLES } from "../shared/wire.js";

const LOW = -4; // the ends of the histogram
const HIGH = 4;
const BINS = 64;
const GAP = 2; // pixels between images

/**
 * x_t of every value, float32: x0 as bytes, eps as int16.
 * @param {Float32Array} out
 * @param {Uint8Array} x0
 * @param {Int16Array} eps
 * @param {number} alphaBar
 */
export function noisedBatch(out, x0, eps, alphaBar) {
  const shift = Math.sqrt(alphaBar);
  const signal = shift / GRAYS_PER_UNIT;
  const noise = Math.sqrt(1 - alphaBar) / EPS_SCALE;
  for (let p = 0; p < out.length; p++) out[p] = signal * x0[p] - shift + noise * eps[p];
  return out;
}

/**
 * The share of values[from..to) in each of `density.length` equal bins of [low, high], per unit of
 * width.
 * @param {Float64Array} density
 * @param {Numbers} values
 * @param {number} from
 * @param {number} to
 * @param {number} low
 * @param {number} high
 */
export function histogram(density, values, from, to, low, high) {
  density.fill(0);
  const bins = density.length;
  const width = (high - low) / bins;
  for (let p = from; p < to; p++) {
    const bin = Math.floor((values[p] - low) / width);
    if (bin >= 0 && bin < bins) density[bin]++;
  }
  for (let bin = 0; bin < bins; bin++) density[bin] /= (to - from) * width;
  return density;
}

/** @param {View<ForwardExplorerTraits>} view */
export function render({ model, el }) {
  const stage = new Stage({ model, el }, TITLES.forward);
  const x0 = typedArray(model, "x0", Uint8Array);
  const given = typedArray(model, "eps", Int16Array);
  const [count, ...shape] = model.get("shape");
  const [channels, h, w] = shape;
  const names = model.get("schedule_names");
  const bars = typedArray(model, "alpha_bar", Float64Array);
  const T = bars.length / names.length - 1;
  const size = channels * h * w;
  const x_t = new Float32Array(x0.length);
  const density = new Float64Array(BINS);
  let eps = given;
  let drawn = 0;

  stage.timestep({ name: "t", range: () => [0, T], spoken: () => sentence() });
  const row = stage.row();
  if (names.length > 1) {
    const options = names.map((name) => /** @type {const} */ ([name, name]));
    stage.choice({ label: "schedule", name: "schedule", options, place: row });
  }
  if (count > 1) {
    /** @type {[number, string][]} */
    const each = Array.from({ length: count }, (_, i) => [i, `image ${i + 1}`]);
    stage.choice({
      label: "show",
      name: "image",
      place: row,
      options: [[ALL, `all ${count} images`], ...each],
    });
  }
  stage.button("New noise", () => stage.set("noise", stage.get("noise") + 1), row);
  const say = stage.line();
  const box = stage.panels();

  const columns = Math.min(count, Math.ceil(Math.sqrt(count * 1.6)));
  const rows = Math.ceil(count / columns);
  const width = columns * (w + GAP) - GAP;
  const height = rows * (h + GAP) - GAP;
  const grid = stage.pixels({
    width,
    height,
    place: box,
    caption: "x_t",
    scale: Math.max(1, Math.min(8, Math.floor(Math.min(366 / width, 400 / height)))),
  });
  const chart = stage.chart({
    width: 250,
    height: 210,
    place: box,
    x: [LOW, HIGH],
    y: [0, 1],
    xLabel: "value of a pixel",
    caption: "pixels of x_t (filled) and N(0, 1) (dashed)",
    margins: [10, 14, 34, 34],
  });
  const rates = stage.chart({
    width: 180,
    height: 210,
    place: box,
    x: [0, 2],
    y: [0, 1.12],
    yTicks: [0, 0.5, 1],
    xTicks: [
      [0.5, "signal"],
      [1.5, "noise"],
    ],
    margins: [10, 8, 34, 34],
    caption: "the weights √ᾱ and √(1−ᾱ)",
  });
  const values = Float64Array.from({ length: 161 }, (_, i) => LOW + (i / 160) * (HIGH - LOW));
  const normal = values.map((v) => Math.exp((-v * v) / 2) / Math.sqrt(2 * Math.PI));

  const at = () => clamp(stage.get("t"), 0, T);
  const bar = () => bars[Math.max(0, names.indexOf(stage.get("schedule"))) * (T + 1) + at()];
  function sentence() {
    const a = bar();
    const snr = a < 1 ? short(a / (1 - a)) : "∞";
    return (
      `t = ${at()} of ${T}: signal ${Math.sqrt(a).toFixed(3)}, ` +
      `noise ${Math.sqrt(1 - a).toFixed(3)}, SNR ${snr}`
    );
  }

  /** @param {boolean} full */
  function paintHistogram(full) {
    const peak = Math.max(0.45, Math.min(2, largest(density, 0) * 1.05));
    const top = [0.45, 0.6, 0.8, 1, 1.5].find((v) => v >= peak) ?? 2;
    if (chart.y[1] !== top) {
      chart.y = [0, top];
      chart.invalidate();
    }
    chart.frame(full, (c) => {
      c.fillStyle = stage.theme.curves[0];
      c.globalAlpha = 0.45;
      const across = chart.px(HIGH) - chart.px(LOW);
      for (let b = 0; b < BINS; b++) {
        const high = chart.py(0) - chart.py(Math.min(density[b], top));
        const left = chart.px(LOW) + (b * across) / BINS;
        c.fillRect(left, chart.py(0) - high, across / BINS + 0.5, high);
      }
      c.globalAlpha = 1;
      chart.curve(c, values, normal, 1);
    });
  }

  /**
   * @param {boolean} full
   * @param {number} a
   */
  function paintRates(full, a) {
    rates.frame(full, (c) => {
      for (const [i, rate] of [Math.sqrt(a), Math.sqrt(1 - a)].entries()) {
        c.fillStyle = stage.theme.curves[i];
        const left = rates.px(i + 0.2);
        const right = rates.px(i + 0.8);
        c.fillRect(left, rates.py(rate), right - left, rates.py(0) - rates.py(rate));
        c.fillStyle = stage.theme.ink;
        c.font = FONT;
        c.textAlign = "center";
        c.textBaseline = "bottom";
        c.fillText(rate.toFixed(3), (left + right) / 2, rates.py(rate) - 2);
      }
    });
  }

  stage.paints(["t", "schedule", "image", "noise"], (full) => {
    const wanted = stage.get("noise");
    if (wanted !== drawn) {
      drawn = wanted;
      eps = wanted
        ? Int16Array.from(normalNumbers(wanted, x0.length), (e) => toInt16(e * EPS_SCALE))
        : given;
    }
    const a = bar();
    const one = stage.get("image");
    noisedBatch(x_t, x0, eps, a);
    const [first, end] = one === ALL ? [0, count] : [one, one + 1];
    grid.data.fill(0);
    for (let i = first; i < end; i++) {
      const left = (i % columns) * (w + GAP);
      const top = Math.floor(i / columns) * (h + GAP);
      paintImage(grid.data, grid.width, left, top, shape, i, (p) => x_t[p]);
    }
    grid.put();
    histogram(density, x_t, first * size, end * size, LOW, HIGH);
    paintHistogram(full);
    paintRates(full, a);
    const text = sentence();
    say(text);
    grid.describe(`${one === ALL ? `${count} images` : `Image ${one + 1}`} noised. ${text}`);
    rates.describe(`Two bars. ${text}`);
    const { mean, deviation } = moments(x_t, first * size, end * size);
    chart.describe(
      "Histogram of the pixels beside the bell curve of N(0, 1): mean " +
        `${mean.toFixed(2)}, standard deviation ${deviation.toFixed(2)}.`,
    );
  });
  return () => stage.end();
}

export { moments, normalNumbers, paintImage };
export default { render };
