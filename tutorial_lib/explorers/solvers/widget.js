// Solver explorer: Euler, Heun and DPM-Solver++ race through the exact field of a mixture.

/** @import { Numbers, View } from "../shared/types" */
/** @import { SolverExplorerTraits } from "../shared/traits" */

import { clamp, largest, short, typedArray } from "../shared/numbers.js";
import { Stage } from "../shared/stage.js";
import { EVALUATIONS_MAX, EVALUATIONS_MIN, SOLVERS, TITLES } from "../shared/wire.js";

/** @type {Readonly<Record<string, string>>} */
const CALLED = SOLVERS;
const NAMES = Object.keys(CALLED);
const SMALLEST = 1e-6; // of an error that is drawn

/**
 * A mixture in the plane and a schedule.
 * @typedef {object} World
 * @property {Numbers} means x and y of each cluster
 * @property {Numbers} variances
 * @property {Numbers} weights
 * @property {Numbers} sigma noise_rate / signal_rate at step t
 */

/**
 * The exact noise in the state (x, y) at step t.
 * @param {World} world
 * @param {number} x
 * @param {number} y
 * @param {number} t
 */
export function epsHat(world, x, y, t) {
  const { means, variances, weights, sigma } = world;
  const count = variances.length;
  const signal = 1 / Math.sqrt(1 + sigma[t] ** 2);
  const noise = sigma[t] * signal;
  const logs = new Float64Array(count);
  for (let k = 0; k < count; k++) {
    const variance = signal ** 2 * variances[k] + noise ** 2;
    const [dx, dy] = [x - signal * means[2 * k], y - signal * means[2 * k + 1]];
    logs[k] = Math.log(weights[k] / variance) - (dx * dx + dy * dy) / (2 * variance);
  }
  const top = largest(logs);
  let [sum, ex, ey] = [0, 0, 0];
  for (let k = 0; k < count; k++) {
    const variance = signal ** 2 * variances[k] + noise ** 2;
    const share = Math.exp(logs[k] - top);
    sum += share;
    ex += (share / variance) * (x - signal * means[2 * k]);
    ey += (share / variance) * (y - signal * means[2 * k + 1]);
  }
  return [(noise * ex) / sum, (noise * ey) / sum];
}

/**
 * The states of a walk in x, from `start` through `steps`: as many pairs as there are steps.
 * @param {string} solver
 * @param {World} world
 * @param {Numbers} steps fall to 0
 * @param {Numbers} start x and y at the first of them
 */
export function walk(solver, world, steps, start) {
  const { sigma } = world;
  const states = new Float64Array(2 * steps.length);
  states.set([start[0], start[1]]);
  /** @type {number[] | null} what the model saw in the step before, and log sigma there */
  let before = null;
  for (let i = 0; i + 1 < steps.length; i++) {
    const [t, s] = [steps[i], steps[i + 1]];
    const [x, y] = [states[2 * i], states[2 * i + 1]];
    const grow = Math.sqrt(1 + sigma[t] ** 2); // 1 / signal_rate
    const shrink = 1 / Math.sqrt(1 + sigma[s] ** 2);
    const stride = sigma[s] - sigma[t];
    let [dx, dy] = epsHat(world, x, y, t);
    if (solver === "heun" && s > 0) {
      const there = [shrink * (grow * x + stride * dx), shrink * (grow * y + stride * dy)];
      const second = epsHat(world, there[0], there[1], s);
      dx = (dx + second[0]) / 2;
      dy = (dy + second[1]) / 2;
    }
    if (solver === "dpm_solver") {
      const target = [grow * x - sigma[t] * dx, grow * y - sigma[t] * dy];
      const seen = [...target, Math.log(sigma[t])];
      if (before && s > 0) {
        const h = Math.log(sigma[t] / sigma[s]);
        const factor = h / (2 * (before[2] - seen[2]));
        target[0] += factor * (seen[0] - before[0]);
        target[1] += factor * (seen[1] - before[1]);
      }
      before = seen;
      dx = (grow * x - target[0]) / sigma[t]; // the slope that leads to the target
      dy = (grow * y - target[1]) / sigma[t];
    }
    states[2 * i + 2] = shrink * (grow * x + stride * dx);
    states[2 * i + 3] = shrink * (grow * y + stride * dy);
  }
  return states;
}

/**
 * The most steps that so many evaluations allow a solver.
 * @param {string} solver
 * @param {number} evaluations
 */
export function stepsFor(solver, evaluations) {
  return solver === "heun" ? Math.floor((evaluations + 1) / 2) : evaluations;
}

/**
 * How far walks end from where they should, on average.
 * @param {Numbers[]} walks
 * @param {Numbers} ends
 */
export function missOf(walks, ends) {
  let sum = 0;
  for (const [p, states] of walks.entries()) {
    const last = states.length - 2;
    sum += Math.hypot(states[last] - ends[2 * p], states[last + 1] - ends[2 * p + 1]);
  }
  return sum / walks.length;
}

/**
 * The order that a pair of errors shows, at `few` and `many` evaluations.
 * @param {number} error
 * @param {number} later
 * @param {number} few
 * @param {number} many
 */
export function orderOf(error, later, few, many) {
  return Math.log(error / later) / Math.log(many / few);
}

/** @param {View<SolverExplorerTraits>} view */
export function render({ model, el }) {
  const stage = new Stage({ model, el }, TITLES.solvers);
  const world = {
    means: typedArray(model, "means", Float64Array),
    variances: typedArray(model, "variances", Float64Array),
    weights: typedArray(model, "weights", Float64Array),
    sigma: typedArray(model, "sigma", Float64Array),
  };
  const starts = typedArray(model, "starts", Float64Array);
  const ends = typedArray(model, "ends", Float64Array);
  const paths = typedArray(model, "paths", Float32Array);
  const listed = typedArray(model, "timesteps", Int32Array);
  const spacings = model.get("spacings");
  const points = starts.length / 2;
  const edge = model.get("edge");

  // The lists of steps stand one after the other: for each spacing those of 1, 2, ... steps.
  const ofSpacing = listed.length / spacings.length;
  const stepsOf = (/** @type {string} */ spacing, /** @type {number} */ count) => {
    const first = spacings.indexOf(spacing) * ofSpacing + ((count - 1) * (count + 2)) / 2;
    return listed.subarray(first, first + count + 1);
  };
  const walks = (/** @type {string} */ solver, /** @type {Numbers} */ steps) =>
    Array.from({ length: points }, (_, p) =>
      walk(solver, world, steps, starts.subarray(2 * p, 2 * p + 2)),
    );

  const range = /** @type {[number, number]} */ ([EVALUATIONS_MIN, EVALUATIONS_MAX]);
  stage.slider({
    label: "evaluations",
    name: "evaluations",
    min: EVALUATIONS_MIN,
    max: EVALUATIONS_MAX,
    wide: true,
    text: String,
    spoken: () => sentence(),
  });
  stage.play({ name: "evaluations", range: () => range });
  stage.choice({
    label: "spacing of the steps",
    name: "spacing",
    options: spacings.map((name) => [name, name]),
    place: stage.row(),
  });
  const say = stage.line();

  const box = stage.panels();
  const planes = NAMES.map((solver) =>
    stage.chart({
      width: 186,
      height: 186,
      x: [-edge, edge],
      y: [-edge, edge],
      xTicks: [],
      yTicks: [],
      margins: [2, 2, 2, 2],
      place: box,
      caption: CALLED[solver],
    }),
  );
  const decades = (/** @type {number} */ d) =>
    /** @type {[number, string]} */ ([d, short(10 ** d)]);
  const counts = Array.from(
    { length: EVALUATIONS_MAX - EVALUATIONS_MIN + 1 },
    (_, i) => EVALUATIONS_MIN + i,
  );
  const logs = counts.map((n) => Math.log2(n));
  const chart = stage.chart({
    width: 246,
    height: 186,
    x: [logs[0], logs[logs.length - 1]],
    y: [-3, 1],
    xTicks: [2, 4, 8, 16, 32, 64].map((n) => [Math.log2(n), String(n)]),
    xLabel: "evaluations",
    place: box,
    caption: "distance from the exact ends, on average",
  });

  for (const plane of planes) {
    plane.background = (c) => {
      c.strokeStyle = stage.theme.ink;
      c.lineWidth = 1;
      for (let k = 0; k < world.variances.length; k++) {
        const radius = 2 * Math.sqrt(world.variances[k]);
        c.beginPath();
        c.arc(
          plane.px(world.means[2 * k]),
          plane.py(world.means[2 * k + 1]),
          Math.max(2, plane.px(radius) - plane.px(0)),
          0,
          2 * Math.PI,
        );
        c.fillStyle = stage.theme.faint;
        c.fill();
      }
      const kept = paths.length / (2 * points);
      for (let p = 0; p < points; p++) {
        c.beginPath();
        for (let i = 0; i < kept; i++) {
          const at = 2 * (i * points + p);
          c.lineTo(plane.px(paths[at]), plane.py(paths[at + 1]));
        }
        c.stroke();
      }
    };
  }

  /** The errors of each solver at 2, 3, ... evaluations, by spacing. @type {Map<string, number[][]>} */
  const measured = new Map();
  /** @param {string} spacing */
  function errorsOf(spacing) {
    const known = measured.get(spacing);
    if (known) return known;
    const found = NAMES.map((solver) =>
      counts.map((n) => missOf(walks(solver, stepsOf(spacing, stepsFor(solver, n))), ends)),
    );
    measured.set(spacing, found);
    return found;
  }
  const now = () => clamp(stage.get("evaluations"), EVALUATIONS_MIN, EVALUATIONS_MAX);
  const errors = () => errorsOf(stage.get("spacing")).map((row) => row[now() - EVALUATIONS_MIN]);
  const listing = () =>
    errors()
      .map((error, k) => `${CALLED[NAMES[k]]} ${short(error, 2)}`)
      .join(", ");
  function sentence() {
    return `${now()} evaluations, ${stage.get("spacing")} spacing: ${listing()} from the exact ends`;
  }

  let drawn = "";
  stage.paints(["evaluations", "spacing"], (full) => {
    const spacing = stage.get("spacing");
    const rows = errorsOf(spacing);
    const text = sentence();
    if (spacing !== drawn) {
      drawn = spacing;
      const all = rows.flat().map((error) => Math.log10(Math.max(SMALLEST, error)));
      const low = Math.floor(-largest(all.map((error) => -error)));
      const high = Math.max(low + 1, Math.ceil(largest(all)));
      chart.y = [low, high];
      chart.yTicks = Array.from({ length: high - low + 1 }, (_, i) => decades(low + i));
      chart.background = (c) => {
        for (const [k, row] of rows.entries()) {
          const heights = row.map((error) => Math.log10(Math.max(SMALLEST, error)));
          chart.curve(c, logs, heights, k);
        }
      };
      chart.invalidate();
    }
    for (const [k, plane] of planes.entries()) {
      const found = walks(NAMES[k], stepsOf(spacing, stepsFor(NAMES[k], now())));
      plane.frame(full, (c) => {
        c.strokeStyle = stage.theme.curves[k];
        c.fillStyle = stage.theme.curves[k];
        c.lineWidth = 1.3;
        for (const states of found) {
          c.beginPath();
          for (let i = 0; i < states.length; i += 2) {
            c.lineTo(plane.px(states[i]), plane.py(states[i + 1]));
          }
          c.stroke();
          for (let i = 0; i < states.length; i += 2) {
            const radius = i + 2 === states.length ? 3.2 : 1.6;
            c.beginPath();
            c.arc(plane.px(states[i]), plane.py(states[i + 1]), radius, 0, 2 * Math.PI);
            c.fill();
          }
        }
      });
      const steps = stepsFor(NAMES[k], now());
      plane.describe(
        `${points} walks of ${CALLED[NAMES[k]]} in ${steps} steps, beside the exact paths; ` +
          `they end ${short(errors()[k], 2)} from the exact ends.`,
      );
    }
    chart.frame(full, (c) => {
      chart.marker(c, Math.log2(now()));
      for (const [k, error] of errors().entries()) {
        chart.dot(c, Math.log2(now()), Math.log10(Math.max(SMALLEST, error)), k, 4.5);
      }
    });
    say(text);
    const orders = rows.map((row, k) => {
      const order = orderOf(row[32 - EVALUATIONS_MIN], row[64 - EVALUATIONS_MIN], 32, 64);
      return `${CALLED[NAMES[k]]} ${order.toFixed(1)}`;
    });
    chart.describe(
      "Curves of the error over the number of evaluations, both logarithmic. From 32 to 64 they " +
        `fall with order ${orders.join(", ")}. ${text}.`,
    );
  });
  return () => stage.end();
}

export default { render };
