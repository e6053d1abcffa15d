// Trajectory explorer: two walks from one x_T, looked at while t falls from T to 0.

/** @import { Numbers, View } from "../shared/types" */
/** @import { TrajectoryExplorerTraits } from "../shared/traits" */

import { clamp, fromByte, largest, ticks, typedArray } from "../shared/numbers.js";
import { element, paintImage } from "../shared/pixels.js";
import { Stage } from "../shared/stage.js";
import { DDIM, DDPM, GRAYS_PER_UNIT, TITLES } from "../shared/wire.js";

const GAP = 2; // pixels between images

/**
 * @typedef {object} Walk
 * @property {string} name
 * @property {number} steps how many it takes
 * @property {number} eta
 * @property {number[]} t the halts that are kept, falling
 * @property {number} first which of all halts sent is its first
 * @property {Float32Array} settled how far x0_hat at each halt is from the end
 */

/**
 * The number of the last halt at `t` or before it, as a walk comes down from T.
 * @param {Numbers} halts
 * @param {number} t
 */
export function reached(halts, t) {
  let i = 0;
  while (i + 1 < halts.length && halts[i + 1] >= t) i++;
  return i;
}

/**
 * How many of `steps` equal strides from T a walk has taken when it halts at `halt`.
 * @param {number} halt
 * @param {number} T
 * @param {number} steps
 */
export function stepsTaken(halt, T, steps) {
  return Math.round(((T - halt) * steps) / T);
}

/**
 * Root mean square difference of two pictures in bytes, where white is 1 and black -1.
 * @param {Numbers} one
 * @param {Numbers} other
 */
export function apart(one, other) {
  let sum = 0;
  for (let p = 0; p < one.length; p++) sum += (one[p] - other[p]) ** 2;
  return Math.sqrt(sum / one.length) / GRAYS_PER_UNIT;
}

/** @param {View<TrajectoryExplorerTraits>} view */
export function render({ model, el }) {
  const stage = new Stage({ model, el }, TITLES.trajectory);
  const [count, ...shape] = model.get("shape");
  const [channels, h, w] = shape;
  const T = model.get("num_steps");
  const size = count * channels * h * w;
  const x_t = typedArray(model, "x_t", Uint8Array);
  const x0_hat = typedArray(model, "x0_hat", Uint8Array);
  const settled = typedArray(model, "settled", Float32Array);
  /** @type {Walk[]} */
  const walks = [];
  let first = 0;
  for (const walk of model.get("walks")) {
    const end = first + walk.t.length;
    walks.push({ ...walk, first, settled: settled.subarray(first, end) });
    first = end;
  }

  stage.timestep({
    name: "t",
    range: () => [0, T],
    backwards: true,
    toValue: (x) => T - x,
    toPosition: (t) => T - t,
    spoken: () => sentence(),
  });
  const row = stage.row();
  stage.choice({
    label: "DDIM steps",
    name: "steps",
    options: model.get("all_steps").map((steps) => [steps, String(steps)]),
    place: row,
  });
  stage.choice({
    label: "DDIM η",
    name: "eta",
    options: model.get("all_etas").map((eta) => [eta, String(eta)]),
    place: row,
  });
  const say = stage.line();

  const box = stage.panels();
  const left = element("div");
  box.append(left);
  const width = count * (w + GAP) - GAP;
  const room = count > 2 ? 420 : 236;
  const scale = Math.max(1, Math.min(8, Math.floor(Math.min(room / width, 168 / h))));
  const views = [DDPM, DDIM].map((name) => {
    const place = element("div", { class: "tx-panels" });
    left.append(place);
    const picture = { width, height: h, scale, place };
    return {
      name,
      states: stage.pixels({ ...picture, caption: `${name}: x_t` }),
      guesses: stage.pixels({ ...picture, caption: `${name}: x̂₀, the guess from there` }),
    };
  });
  const chart = stage.chart({
    width: 310,
    height: 2 * Math.max(110, h * scale) + 10,
    place: box,
    x: [T, 0],
    y: [0, 1],
    xTicks: ticks(0, T),
    xLabel: "t, falling",
    caption: "how far x̂₀ is from where its walk ends (rms)",
  });

  const at = () => clamp(stage.get("t"), 0, T);
  /** The walks that are compared, DDPM's and DDIM's. */
  const pair = () => {
    const [steps, eta] = [stage.get("steps"), stage.get("eta")];
    const chosen = walks.find((w) => w.name === DDIM && w.steps === steps && w.eta === eta);
    return [walks[0], chosen ?? walks[1]];
  };
  const taken = (/** @type {Walk} */ walk) => {
    const done = stepsTaken(walk.t[reached(walk.t, at())], T, walk.steps);
    return `${walk.name} after ${done} of ${walk.steps} steps`;
  };
  /**
   * The pictures of a walk at halt `k`.
   * @param {Uint8Array} all
   * @param {Walk} walk
   * @param {number} k
   */
  const pictures = (all, walk, k) =>
    all.subarray((walk.first + k) * size, (walk.first + k + 1) * size);
  const last = (/** @type {Walk} */ walk) => pictures(x_t, walk, walk.t.length - 1);
  function sentence() {
    const [one, other] = pair();
    const distance = apart(last(one), last(other)).toFixed(2);
    return (
      `t = ${at()}: ${taken(one)}, ${taken(other)}, η = ${other.eta}; ` +
      `they end ${distance} apart (rms)`
    );
  }
  /**
   * @param {{ data: Uint8ClampedArray, put: () => void }} picture
   * @param {Uint8Array} bytes
   */
  function paint(picture, bytes) {
    for (let i = 0; i < count; i++) {
      paintImage(picture.data, width, i * (w + GAP), 0, shape, i, (p) => fromByte(bytes[p]));
    }
    picture.put();
  }

  /** @param {Walk[]} both */
  function drawCurves(both) {
    const most = largest(both.flatMap((walk) => [...walk.settled]));
    chart.y = [0, most * 1.08 || 1];
    chart.background = (c) => {
      for (const [which, walk] of both.entries()) {
        chart.curve(c, walk.t, walk.settled, which);
        if (walk.t.length > 30) continue;
        for (const [k, halt] of walk.t.entries()) chart.dot(c, halt, walk.settled[k], which, 2.5);
      }
      const places = both.map((walk) => reached(walk.t, 0.75 * T));
      const heights = both.map((walk, which) => walk.settled[places[which]]);
      for (const [which, walk] of both.entries()) {
        // The name of the upper curve stands above it, the other below.
        const upper = which ? heights[1] > heights[0] : heights[0] >= heights[1];
        const shift = { dx: upper ? 8 : -38, dy: upper ? -14 : 14 };
        chart.label(c, walk.name, walk.t[places[which]], heights[which], which, shift);
      }
    };
    chart.invalidate();
  }

  let drawn = "";
  stage.paints(["t", "steps", "eta"], (full) => {
    const both = pair();
    const t = at();
    const wanted = both.map((walk) => walk.first).join();
    if (wanted !== drawn) {
      drawn = wanted;
      drawCurves(both);
    }
    const halts = both.map((walk) => reached(walk.t, t));
    for (const [which, { name, states, guesses }] of views.entries()) {
      const walk = both[which];
      const k = halts[which];
      paint(states, pictures(x_t, walk, k));
      paint(guesses, pictures(x0_hat, walk, k));
      const who = count > 1 ? `${count} pictures` : "Picture";
      const when = `at t = ${walk.t[k]}, ${taken(walk)}`;
      states.describe(`${who} x_t of ${name} ${when}.`);
      guesses.describe(`${who} x0_hat of ${name}, the clean data that the model sees ${when}.`);
    }
    chart.frame(full, (c) => {
      chart.marker(c, t);
      for (const [which, walk] of both.entries()) {
        const k = halts[which];
        chart.dot(c, walk.t[k], walk.settled[k], which, 5);
      }
    });
    const text = sentence();
    say(text);
    const now = both.map((walk, which) => `${walk.name} ${walk.settled[halts[which]].toFixed(2)}`);
    chart.describe(
      "Curves of the distance between the guess x0_hat and the end of its walk, as t falls; now " +
        `${now.join(", ")}. ${text}`,
    );
  });
  return () => stage.end();
}

export default { render };
