// Flow explorer: straight lines, learned paths and reflowed paths from noise to data.

/** @import { Context } from "../shared/chart.js" */
/** @import { Numbers, View } from "../shared/types" */
/** @import { FlowExplorerTraits } from "../shared/traits" */

import { clamp, largest, short, typedArray } from "../shared/numbers.js";
import { element } from "../shared/pixels.js";
import { Stage } from "../shared/stage.js";
import { FLOW_PATHS, FLOW_STEPS, MANY_STEPS, MOMENTS, TITLES } from "../shared/wire.js";

/** @type {Readonly<Record<string, string>>} */
const CALLED = FLOW_PATHS;
const NAMES = Object.keys(CALLED);
const FLOWS = NAMES.slice(1); // those that are walked
const SMALLEST = 1e-4; // of an error that is drawn
const LINES_SAY =
  "at each time lines of many directions pass through a place: a flow learns their mean velocity";

/**
 * Straight lines whose ends are drawn together: component k has its data end around `data` and its
 * noise end around `noise`, Gaussian and independent of each other.
 * @typedef {object} Mixture
 * @property {Numbers} data x and y of each component
 * @property {Numbers} noise
 * @property {Numbers} dataVariance
 * @property {Numbers} noiseVariance
 * @property {Numbers} weights
 */

/**
 * The mean velocity of all lines through (x, y) at a time above 0.
 * @param {Mixture} mixture
 * @param {number} x
 * @param {number} y
 * @param {number} time
 */
export function velocity(mixture, x, y, time) {
  const { data, noise, dataVariance, noiseVariance, weights } = mixture;
  const count = weights.length;
  const rest = 1 - time;
  const logs = new Float64Array(count);
  let top = -Infinity;
  for (let k = 0; k < count; k++) {
    const variance = rest * rest * dataVariance[k] + time * time * noiseVariance[k];
    const dx = x - rest * data[2 * k] - time * noise[2 * k];
    const dy = y - rest * data[2 * k + 1] - time * noise[2 * k + 1];
    logs[k] = Math.log(weights[k] / variance) - (dx * dx + dy * dy) / (2 * variance);
    if (logs[k] > top) top = logs[k];
  }
  let [sum, vx, vy] = [0, 0, 0];
  for (let k = 0; k < count; k++) {
    const share = Math.exp(logs[k] - top);
    if (share === 0) continue;
    const variance = rest * rest * dataVariance[k] + time * time * noiseVariance[k];
    const slope = (time * noiseVariance[k] - rest * dataVariance[k]) / variance;
    const dx = x - rest * data[2 * k] - time * noise[2 * k];
    const dy = y - rest * data[2 * k + 1] - time * noise[2 * k + 1];
    sum += share;
    vx += share * (noise[2 * k] - data[2 * k] + slope * dx);
    vy += share * (noise[2 * k + 1] - data[2 * k + 1] + slope * dy);
  }
  return [vx / sum, vy / sum];
}

/**
 * The states of Euler's method from noise to data in equal steps: `steps` + 1 pairs.
 * @param {Mixture} mixture
 * @param {Numbers} start x and y
 * @param {number} steps
 */
export function walk(mixture, start, steps) {
  const states = new Float64Array(2 * steps + 2);
  let [x, y] = [start[0], start[1]];
  states.set([x, y]);
  for (let i = 0; i < steps; i++) {
    const [vx, vy] = velocity(mixture, x, y, 1 - i / steps);
    x -= vx / steps;
    y -= vy / steps;
    states.set([x, y], 2 * i + 2);
  }
  return states;
}

/**
 * Where a walk in equal steps is at a time: between two states on the straight line.
 * @param {Numbers} states
 * @param {number} time
 */
export function at(states, time) {
  const steps = states.length / 2 - 1;
  const i = Math.min(steps - 1, Math.floor((1 - time) * steps));
  const share = (1 - time) * steps - i;
  const [x, y] = [states[2 * i], states[2 * i + 1]];
  return [x + share * (states[2 * i + 2] - x), y + share * (states[2 * i + 3] - y)];
}

/**
 * How often paths cross one another as they are drawn.
 * @param {Numbers[]} paths
 */
export function crossings(paths) {
  let count = 0;
  for (let p = 0; p < paths.length; p++) {
    for (let q = 0; q < p; q++) {
      for (let i = 0; i + 3 < paths[p].length; i += 2) {
        for (let j = 0; j + 3 < paths[q].length; j += 2) {
          if (cross(paths[p], i, paths[q], j)) count++;
        }
      }
    }
  }
  return count;
}

/**
 * Whether piece i of one path crosses piece j of another.
 * @param {Numbers} a
 * @param {number} i
 * @param {Numbers} b
 * @param {number} j
 */
function cross(a, i, b, j) {
  const [ax, ay, bx, by] = [a[i], a[i + 1], b[j], b[j + 1]];
  const [dx, dy] = [a[i + 2] - ax, a[i + 3] - ay];
  const [ex, ey] = [b[j + 2] - bx, b[j + 3] - by];
  const side = dx * (by - ay) - dy * (bx - ax);
  if (side * (side + dx * ey - dy * ex) >= 0) return false; // all of b on one side of a
  const other = ex * (ay - by) - ey * (ax - bx);
  return other * (other + ex * dy - ey * dx) < 0;
}

/** @param {View<FlowExplorerTraits>} view */
export function render({ model, el }) {
  const stage = new Stage({ model, el }, TITLES.flows);
  const means = typedArray(model, "means", Float64Array);
  const variances = typedArray(model, "variances", Float64Array);
  const weights = typedArray(model, "weights", Float64Array);
  const pairs = typedArray(model, "pairs", Float64Array);
  const starts = typedArray(model, "starts", Float64Array);
  const ends = typedArray(model, "lines", Float64Array);
  const [dataBlur, noiseBlur] = model.get("blurs");
  const errors = model.get("errors");
  const shares = model.get("shares");
  const straightness = model.get("straightness");
  const real = model.get("real_share");
  const edge = model.get("edge");
  const points = starts.length / 2;
  const count = pairs.length / 4;

  const column = (/** @type {number} */ first) =>
    Float64Array.from({ length: 2 * count }, (_, i) => pairs[4 * (i >> 1) + first + (i & 1)]);
  /** @type {Record<string, Mixture>} */
  const mixtures = {
    learned: {
      data: means,
      noise: new Float64Array(means.length),
      dataVariance: variances,
      noiseVariance: new Float64Array(variances.length).fill(1),
      weights,
    },
    reflowed: {
      data: column(0),
      noise: column(2),
      dataVariance: new Float64Array(count).fill(dataBlur),
      noiseVariance: new Float64Array(count).fill(noiseBlur),
      weights: new Float64Array(count).fill(1 / count),
    },
  };

  stage.slider({
    label: "time",
    name: "moment",
    min: 0,
    max: MOMENTS,
    wide: true,
    toValue: (position) => MOMENTS - position,
    toPosition: (moment) => MOMENTS - moment,
    text: () => time().toFixed(2),
    spoken: () => `time ${time().toFixed(2)}`,
  });
  stage.play({ name: "moment", range: () => [0, MOMENTS], backwards: true });
  const row = stage.row();
  /** @type {[string, string][]} */
  const kinds = NAMES.map((name) => [name, CALLED[name]]);
  stage.choice({ label: "show", name: "paths", options: kinds, place: row });
  /** @type {[number, string][]} */
  const allowed = FLOW_STEPS.map((steps) => [steps, String(steps)]);
  stage.choice({ label: "Euler steps", name: "steps", options: allowed, place: row });
  const say = stage.line();
  const add = stage.line();

  const box = stage.panels();
  const plane = stage.chart({
    width: 340,
    height: 340,
    x: [-edge, edge],
    y: [-edge, edge],
    xTicks: [],
    yTicks: [],
    margins: [2, 2, 2, 2],
    place: box,
    caption: "rings: noise; dots: where it is now; gray: clusters of the data",
  });
  const side = element("div", { class: "tx-side" });
  box.append(side);
  const logs = FLOW_STEPS.map((n) => Math.log2(n));
  const chart = (/** @type {string} */ caption, /** @type {number[]} */ y) =>
    stage.chart({
      width: 270,
      height: 160,
      x: [logs[0] - 0.2, logs[logs.length - 1] + 0.2],
      y,
      xTicks: FLOW_STEPS.map((n) => [Math.log2(n), String(n)]),
      xLabel: "Euler steps",
      place: side,
      caption,
    });
  const heights = errors.map((error) => Math.log10(Math.max(SMALLEST, error)));
  const low = Math.floor(-largest(heights.map((height) => -height)));
  const high = Math.max(low + 1, Math.ceil(largest(heights)));
  const errorChart = chart(`mean distance from the end of ${MANY_STEPS} steps`, [low, high]);
  errorChart.yTicks = Array.from({ length: high - low + 1 }, (_, i) => [
    low + i,
    short(10 ** (low + i)),
  ]);
  const shareChart = chart("share on a cluster; dashed: the data", [0, 1.05]);
  shareChart.yTicks = [
    [0, "0 %"],
    [0.5, "50 %"],
    [1, "100 %"],
  ];

  /**
   * What stands for a flow in a list with a number for each of FLOW_STEPS.
   * @param {Numbers} list
   * @param {number} which of FLOWS
   */
  const ofFlow = (list, which) => FLOW_STEPS.map((_, i) => list[which * FLOW_STEPS.length + i]);

  const time = () => clamp(stage.get("moment"), 0, MOMENTS) / MOMENTS;
  const kind = () => stage.get("paths");
  const steps = () => stage.get("steps");
  const place = () => FLOW_STEPS.indexOf(steps());

  /** Walks that are known already, by flow and number of steps. @type {Map<string, Numbers[]>} */
  const known = new Map();
  /**
   * @param {string} flow
   * @param {number} many
   */
  function walks(flow, many) {
    const key = `${flow} ${many}`;
    const found = known.get(key) ?? eachPoint((p) => walk(mixtures[flow], of(starts, p), many));
    known.set(key, found);
    return found;
  }
  /** @param {(p: number) => Numbers} one */
  const eachPoint = (one) => Array.from({ length: points }, (_, p) => one(p));
  const of = (/** @type {Float64Array} */ all, /** @type {number} */ p) =>
    all.subarray(2 * p, 2 * p + 2);
  const lines = eachPoint((p) => [...of(starts, p), ...of(ends, p)]);
  /** What is walked, and what the flow's own paths are, which lines have none of. */
  const shown = () => (kind() === NAMES[0] ? lines : walks(kind(), steps()));
  const exact = () => (kind() === NAMES[0] ? lines : walks(kind(), MANY_STEPS));
  /** @type {Map<string, number>} */
  const counted = new Map();
  function crossed() {
    const found = counted.get(kind()) ?? crossings(exact());
    counted.set(kind(), found);
    return found;
  }
  const times = (/** @type {number} */ n) => (n === 1 ? "once" : `${n} times`);
  const percent = (/** @type {number} */ share) => `${(100 * share).toFixed(0)}\u00a0%`;

  function sentence() {
    const when = `time ${time().toFixed(2)}`;
    const cut = crossed() ? `cross ${times(crossed())}` : "do not cross";
    if (kind() === NAMES[0]) {
      return `${when}: ${points} straight lines from noise to data; as drawn, they ${cut}`;
    }
    const many = steps() === 1 ? "1 Euler step" : `${steps()} Euler steps`;
    const never = crossed() ? ", never at the same time" : "";
    return `${when}: ${CALLED[kind()]} in ${many}; as drawn, the paths ${cut}${never}`;
  }
  function numbers() {
    const which = FLOWS.indexOf(kind());
    if (which < 0) return LINES_SAY;
    const error = short(ofFlow(errors, which)[place()], 2);
    const share = percent(ofFlow(shares, which)[place()]);
    return (
      `the steps end ${error} from where ${MANY_STEPS} steps end, ${share} on a cluster; ` +
      `straightness ${short(straightness[which], 2)} (0 is straight)`
    );
  }

  plane.background = (c) => {
    c.lineWidth = 1;
    for (let k = 0; k < variances.length; k++) {
      const radius = plane.px(3 * Math.sqrt(variances[k])) - plane.px(0);
      disc(c, means[2 * k], means[2 * k + 1], Math.max(2, radius));
      c.fillStyle = stage.theme.faint;
      c.fill();
    }
    c.strokeStyle = stage.theme.ink;
    c.globalAlpha = 0.45;
    for (const states of exact()) {
      c.beginPath();
      trace(c, states, states.length / 2);
      c.stroke();
    }
    c.globalAlpha = 1;
  };
  /**
   * @param {Context} c
   * @param {number} x
   * @param {number} y
   * @param {number} radius
   */
  function disc(c, x, y, radius) {
    c.beginPath();
    c.arc(plane.px(x), plane.py(y), radius, 0, 2 * Math.PI);
  }
  /**
   * @param {Context} c
   * @param {Numbers} states
   * @param {number} until how many of them
   */
  function trace(c, states, until) {
    for (let i = 0; i < until; i++) c.lineTo(plane.px(states[2 * i]), plane.py(states[2 * i + 1]));
  }
  const lists = /** @type {const} */ ([
    [errorChart, heights],
    [shareChart, shares],
  ]);
  for (const [panel, list] of lists) {
    panel.background = (c) => {
      if (panel === shareChart) {
        c.strokeStyle = stage.theme.ink;
        c.setLineDash([3, 3]);
        panel.segment(c, panel.box.left, panel.py(real), panel.box.right, panel.py(real));
        c.setLineDash([]);
      }
      for (const [k, name] of FLOWS.entries()) {
        const values = ofFlow(list, k);
        panel.curve(c, logs, values, k + 1);
        for (const [i, value] of values.entries()) panel.dot(c, logs[i], value, k + 1, 2.5);
        const [i, shift] =
          panel === shareChart ? [1 - k, { dx: 10, dy: 10 }] : [2, { dx: 8, dy: k ? 13 : -13 }];
        panel.label(c, name, logs[i], values[i], k + 1, shift);
      }
    };
  }

  let drawn = ""; // what the charts and the picture's background belong to
  stage.paints(["moment", "paths", "steps"], (full) => {
    const now = time();
    const found = shown();
    const wanted = `${kind()} ${steps()}`;
    if (full || wanted !== drawn) {
      drawn = wanted;
      plane.invalidate();
      paintCharts(full);
    }
    plane.frame(full, (c) => {
      c.strokeStyle = c.fillStyle = stage.theme.curves[NAMES.indexOf(kind())];
      for (const states of found) {
        const passed = Math.floor((1 - now) * (states.length / 2 - 1) + 1e-9) + 1;
        const [x, y] = at(states, now);
        c.lineWidth = 1.6;
        c.beginPath();
        trace(c, states, passed);
        c.lineTo(plane.px(x), plane.py(y));
        c.stroke();
        for (let i = 1; i < passed && kind() !== NAMES[0]; i++) {
          disc(c, states[2 * i], states[2 * i + 1], 1.7);
          c.fill();
        }
        disc(c, x, y, 4);
        c.fill();
        c.lineWidth = 1;
        disc(c, states[0], states[1], 3);
        c.stroke();
      }
    });
    say(sentence());
    add(numbers());
    plane.describe(`${sentence()}. ${numbers()}.`);
  });

  /** @param {boolean} full */
  function paintCharts(full) {
    const which = FLOWS.indexOf(kind());
    for (const [panel, list] of lists) {
      panel.frame(full, (c) => {
        panel.marker(c, Math.log2(steps()));
        for (const [k] of FLOWS.entries()) {
          const radius = k === which ? 6 : 3.5;
          panel.dot(c, Math.log2(steps()), ofFlow(list, k)[place()], k + 1, radius);
        }
      });
    }
    const listing = (/** @type {(which: number) => string} */ one) =>
      FLOWS.map((name, k) => `${name} ${one(k)}`).join(", ");
    errorChart.describe(
      `Distance from where ${MANY_STEPS} steps end, over the number of Euler steps, both ` +
        `logarithmic. With ${steps()}: ${listing((k) => short(ofFlow(errors, k)[place()], 2))}.`,
    );
    shareChart.describe(
      "Share of walks that end on a cluster, over the number of Euler steps. With " +
        `${steps()}: ${listing((k) => percent(ofFlow(shares, k)[place()]))}; data ${percent(real)}.`,
    );
  }
  return () => stage.end();
}

export default { render };
