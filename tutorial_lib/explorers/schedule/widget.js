// Schedule explorer: alpha_bar is computed here, so that T and the ends can be dragged.

/** @import { View } from "../shared/types" */
/** @import { ScheduleExplorerTraits } from "../shared/traits" */

import { DASHES } from "../shared/chart.js";
import { clamp, fromByte, largest, short, typedArray } from "../shared/numbers.js";
import { paintImage } from "../shared/pixels.js";
import { Stage } from "../shared/stage.js";
import {
  BETA_MAX,
  BETA_MIN,
  COSINE_MAX_BETA,
  COSINE_OFFSET,
  EPS_SCALE,
  FAMILIES,
  SMALLEST_ALPHA_BAR,
  STEPS_MAX,
  STEPS_MIN,
  TITLES,
} from "../shared/wire.js";

const STRIP = 9; // images from t = 0 to T
const GAP = 2; // pixels between them
const DECIBELS = 60; // the SNR is drawn from -60 to 60

/**
 * beta for t = 1..T at index t, NaN at 0: Ho et al. 2020 (linear, quadratic), Nichol and Dhariwal
 * 2021 (cosine).
 * @param {string} family
 * @param {number} steps
 * @param {number} start
 * @param {number} end
 */
export function betasOf(family, steps, start, end) {
  const squaredCosine = (/** @type {number} */ t) =>
    Math.cos(((t / steps + COSINE_OFFSET) / (1 + COSINE_OFFSET)) * (Math.PI / 2)) ** 2;
  const betas = new Float64Array(steps + 1).fill(NaN);
  for (let t = 1; t <= steps; t++) {
    const share = steps > 1 ? (t - 1) / (steps - 1) : 0;
    if (family === "linear") betas[t] = start + share * (end - start);
    else if (family === "quadratic") {
      betas[t] = (Math.sqrt(start) + share * (Math.sqrt(end) - Math.sqrt(start))) ** 2;
    } else betas[t] = Math.min(COSINE_MAX_BETA, 1 - squaredCosine(t) / squaredCosine(t - 1));
  }
  return betas;
}

/**
 * alpha_bar for t = 0..T, float64. Below the smallest alpha_bar x_0 predicted back overflows
 * float32, and the library refuses the schedule; here it stays at that value.
 * @param {string} family
 * @param {number} steps
 * @param {number} start
 * @param {number} end
 */
export function alphaBar(family, steps, start, end) {
  const betas = betasOf(family, steps, start, end);
  const found = new Float64Array(betas.length).fill(1);
  for (let t = 1; t < found.length; t++) {
    found[t] = Math.max(SMALLEST_ALPHA_BAR, found[t - 1] * (1 - betas[t]));
  }
  return found;
}

/**
 * The first t at which there is more noise than signal; T + 1 where there is none.
 * @param {Float64Array | number[]} alphaBars
 */
export function crossing(alphaBars) {
  const t = alphaBars.findIndex((value) => value < 0.5);
  return t < 0 ? alphaBars.length : t;
}

/** @param {View<ScheduleExplorerTraits>} view */
export function render({ model, el }) {
  const stage = new Stage({ model, el }, TITLES.schedule);
  const x0 = typedArray(model, "x0", Uint8Array);
  const eps = typedArray(model, "eps", Int16Array);
  const own = typedArray(model, "own", Float64Array);
  const names = model.get("own_names");
  const shape = model.get("shape");
  const ownSteps = names.length ? own.length / names.length - 1 : 0;

  stage.choice({
    label: "schedule",
    name: "family",
    options: [...FAMILIES, ...names].map((name) => [name, name]),
  });
  const length = stage.slider({
    label: "T",
    name: "num_steps",
    min: STEPS_MIN,
    max: STEPS_MAX,
    step: 10,
    text: String,
    spoken: (v) => `${v} noise steps`,
  });
  const logarithmic = {
    min: Math.log10(BETA_MIN),
    max: Math.round(10 * Math.log10(BETA_MAX)) / 10,
    step: 0.02,
    toValue: (/** @type {number} */ x) => 10 ** x,
    toPosition: (/** @type {number} */ v) => Math.log10(v),
    text: (/** @type {number} */ v) => short(v, 2),
  };
  const betaRow = stage.row();
  const row = stage.row();
  const ends = [
    stage.slider({ label: "first β", name: "beta_start", place: betaRow, ...logarithmic }),
    stage.slider({ label: "last β", name: "beta_end", place: betaRow, ...logarithmic }),
  ];
  let steps = stage.get("num_steps"); // of the schedule that is shown
  const { slider } = stage.timestep({
    name: "t",
    range: () => [0, steps],
    place: row,
    spoken: () => sentence(),
  });
  const say = stage.line();

  const box = stage.panels();
  const size = { width: 264, height: 190, place: box };
  const time = { x: [0, 1000], xLabel: "t" };
  const charts = {
    beta: stage.chart({ ...size, ...time, y: [0, 0.02], caption: "β: noise added at each step" }),
    rest: stage.chart({
      ...size,
      ...time,
      y: [0, 1],
      caption: "ᾱ: share of the signal's variance left",
    }),
    snr: stage.chart({
      ...size,
      ...time,
      y: [-DECIBELS, DECIBELS],
      caption: "SNR = ᾱ / (1 − ᾱ), in dB",
    }),
  };
  const [, h, w] = shape;
  const pictures = stage.panels();
  const now = stage.pixels({
    width: w,
    height: h,
    scale: Math.max(1, Math.round(168 / h)),
    place: pictures,
    caption: "the image at t",
  });
  const strip = stage.pixels({
    width: STRIP * (w + GAP) - GAP,
    height: h,
    scale: Math.max(1, Math.min(3, Math.floor(680 / (STRIP * (w + GAP))))),
    place: pictures,
    caption: "from t = 0 to T in equal steps",
  });

  let bars = new Float64Array(0);
  let betas = bars;
  let decibels = bars;
  let computedFor = "";
  const at = () => clamp(stage.get("t"), 0, steps);

  /**
   * The image noised to `bar`: sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) eps.
   * @param {{ data: Uint8ClampedArray, width: number }} picture
   * @param {number} left
   * @param {number} bar
   */
  function paintNoised(picture, left, bar) {
    const signal = Math.sqrt(bar);
    const noise = Math.sqrt(1 - bar) / EPS_SCALE;
    const value = (/** @type {number} */ p) => signal * fromByte(x0[p]) + noise * eps[p];
    paintImage(picture.data, picture.width, left, 0, shape, 0, value);
  }

  function compute() {
    const family = stage.get("family");
    const which = names.indexOf(family);
    if (which < 0) {
      steps = stage.get("num_steps");
      const [start, end] = [stage.get("beta_start"), stage.get("beta_end")];
      bars = alphaBar(family, steps, start, end);
      betas = betasOf(family, steps, start, end);
    } else {
      steps = ownSteps;
      bars = own.slice(which * (steps + 1), (which + 1) * (steps + 1));
      betas = bars.map((bar, t) => (t ? 1 - bar / bars[t - 1] : NaN));
    }
    decibels = bars.map((bar) => 10 * Math.log10(bar / (1 - bar)));
    length.disabled = which >= 0;
    for (const end of ends) end.disabled = which >= 0 || family === "cosine";
    slider.max = String(steps);
    charts.beta.y = [0, largest(betas, 0) * 1.05];
    const cross = crossing(bars);
    drawCurves(cross);
    for (let i = 0; i < STRIP; i++) {
      paintNoised(strip, i * (w + GAP), bars[Math.round((i / (STRIP - 1)) * steps)]);
    }
    strip.put();
    strip.describe(
      `One image at ${STRIP} steps from t = 0 to ${steps}, fading into noise: ` +
        `signal and noise are equal ${cross > steps ? "nowhere" : `at t = ${cross}`}.`,
    );
  }

  /** @param {number} cross */
  function drawCurves(cross) {
    const ts = Float64Array.from(bars, (_, t) => t);
    const { beta, rest, snr } = charts;
    for (const [chart, ys] of /** @type {const} */ ([
      [beta, betas],
      [rest, bars],
      [snr, decibels],
    ])) {
      chart.x = [0, steps];
      chart.background = (context) => {
        chart.curve(context, ts, ys, 0);
        if (chart !== snr || cross > steps) return;
        context.strokeStyle = stage.theme.curves[1];
        context.setLineDash(DASHES[1]);
        chart.segment(context, chart.px(0), chart.py(0), chart.px(cross), chart.py(0));
        chart.segment(context, chart.px(cross), chart.py(0), chart.px(cross), chart.py(-DECIBELS));
        context.setLineDash([]);
        chart.label(context, `SNR = 1 at t = ${cross}`, cross, 0, 1, { dx: 6, dy: -12 });
      };
      chart.invalidate();
    }
  }

  function sentence() {
    if (!bars.length) return "";
    const t = at();
    const bar = bars[t];
    const beta = t ? `β ${short(betas[t])}, ` : "";
    return (
      `t = ${t} of ${steps}: ${beta}ᾱ ${short(bar)}, signal ${Math.sqrt(bar).toFixed(3)}, ` +
      `noise ${Math.sqrt(1 - bar).toFixed(3)}, SNR ${t ? short(bar / (1 - bar)) : "∞"}` +
      (bar > SMALLEST_ALPHA_BAR ? "" : ". Nothing is left: the library refuses such a schedule")
    );
  }

  stage.computesFirst(() => {
    const numbers = [stage.get("num_steps"), stage.get("beta_start"), stage.get("beta_end")];
    const wanted = [stage.get("family"), ...numbers].join();
    if (wanted !== computedFor) {
      computedFor = wanted;
      compute();
    }
    if (stage.get("t") > steps) stage.set("t", steps);
  });
  stage.paints(["family", "num_steps", "beta_start", "beta_end", "t"], (full) => {
    const t = at();
    charts.beta.frame(full, (c) => {
      charts.beta.marker(c, t);
      if (t) charts.beta.dot(c, t, betas[t]);
    });
    charts.rest.frame(full, (c) => {
      charts.rest.marker(c, t);
      charts.rest.dot(c, t, bars[t]);
    });
    charts.snr.frame(full, (c) => {
      charts.snr.marker(c, t);
      charts.snr.dot(c, t, decibels[t]);
    });
    paintNoised(now, 0, bars[t]);
    now.put();
    const text = sentence();
    say(text);
    now.describe(`The image at ${text}`);
    charts.beta.describe(`beta over t, rising to ${short(charts.beta.y[1] / 1.05)}. ${text}`);
    charts.rest.describe(`alpha-bar over t, falling from 1 to ${short(bars[steps])}. ${text}`);
    charts.snr.describe(`SNR over t in decibels. ${text}`);
  });
  return () => stage.end();
}

export default { render };
