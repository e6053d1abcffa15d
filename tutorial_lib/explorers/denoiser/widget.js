// Denoiser explorer: what a model said about noised data at the steps where it was asked.

/** @import { Chart, Context } from "../shared/chart.js" */
/** @import { Numbers, Theme, View } from "../shared/types" */
/** @import { DenoiserExplorerTraits } from "../shared/traits" */

import { Kernel } from "../shared/kernel.js";
import { clamp, fromByte, largest, short, typedArray } from "../shared/numbers.js";
import { element, paintImage } from "../shared/pixels.js";
import { Stage } from "../shared/stage.js";
import { ARROWS, ASK, EPS_RANGE, EPS_SCALE, EPS_SHOWN, TELL, TITLES } from "../shared/wire.js";

const LONGEST = 1.25; // of an arrow, in distances between arrows
const LINES = 100; // from the true noise to the guess, at most
const MANY = 400; // points that are drawn smaller

/**
 * What is shown: bytes and int16 as they came. `eps_hat` holds bytes for images, int16 for points;
 * `x0_hat` and `each` are empty for points.
 * @typedef {object} Data
 * @property {Numbers} x0
 * @property {Numbers} eps
 * @property {Numbers} eps_hat
 * @property {Numbers} x0_hat
 * @property {Numbers} each the loss of each image at each step
 * @property {Float32Array} losses the mean loss at each step
 * @property {Float32Array} floors the same of the oracle
 */

/**
 * What is needed to show the data at a step.
 * @typedef {object} Kit
 * @property {Stage<DenoiserExplorerTraits>} stage
 * @property {Data} data
 * @property {boolean} fresh whether the data are new since the last painting
 * @property {number[]} steps
 * @property {number[]} shape of one image or point
 * @property {number} count how many there are
 * @property {number} all numbers in all of them
 * @property {boolean} compared whether there is an oracle
 * @property {() => number} at which of the steps is shown
 * @property {() => number} one which image or point is chosen
 * @property {() => [number, number]} rates of signal and noise
 * @property {() => string} ofThePoint what is said about the chosen point
 */

/**
 * eps_hat from its byte.
 * @param {number} byte
 */
export const epsFromByte = (byte) => fromByte(byte) * EPS_RANGE;

/**
 * What picture `which` shows at value `p`, from -1 (black) to 1 (white); see `PICTURES`.
 * @param {string} which
 * @param {{ x0: Numbers, eps: Numbers, eps_hat: Numbers, x0_hat: Numbers }} data
 * @param {[number, number]} rates of signal and noise
 * @param {number} from where the answers at this step begin
 * @param {number} p
 */
export function pictureValue(which, data, [signal, noise], from, p) {
  const eps = data.eps[p] / EPS_SCALE;
  switch (which) {
    case "x_t":
      return signal * fromByte(data.x0[p]) + noise * eps;
    case "eps":
      return eps / EPS_SHOWN;
    case "eps_hat":
      return epsFromByte(data.eps_hat[from + p]) / EPS_SHOWN;
    case "error":
      return (epsFromByte(data.eps_hat[from + p]) - eps) / EPS_SHOWN;
    default:
      return fromByte(data.x0_hat[from + p]);
  }
}

/**
 * Points in the plane at one step: x_t and x0_hat, each [x, y, x, y, ...].
 * @param {Numbers} x0
 * @param {Numbers} eps int16
 * @param {Numbers} epsHat int16
 * @param {number} from where the answers at this step begin
 * @param {number} signal
 * @param {number} noise
 */
export function pointsAt(x0, eps, epsHat, from, signal, noise) {
  const x_t = new Float32Array(x0.length);
  const x0_hat = new Float32Array(x0.length);
  for (let p = 0; p < x0.length; p++) {
    x_t[p] = signal * x0[p] + (noise * eps[p]) / EPS_SCALE;
    x0_hat[p] = (x_t[p] - (noise * epsHat[from + p]) / EPS_SCALE) / signal;
  }
  return { x_t, x0_hat };
}

/**
 * The middles of the squares where arrows stand, [x, y, x, y, ...], row by row from below.
 * @param {number} reach
 * @param {number} count squares along each axis
 */
export function gridOfPoints(reach, count) {
  const found = new Float64Array(2 * count * count);
  const middle = (/** @type {number} */ i) => (((i + 0.5) / count) * 2 - 1) * reach;
  for (let p = 0; p < count * count; p++) {
    found[2 * p] = middle(p % count);
    found[2 * p + 1] = middle(Math.floor(p / count));
  }
  return found;
}

/**
 * Low and high end of a logarithmic axis for numbers above 0, as powers of ten; at most 6 apart.
 * @param {...Iterable<number>} curves
 */
export function decades(...curves) {
  const all = curves.flatMap((curve) => [...curve]).filter((v) => v > 0);
  const high = Math.min(4, Math.ceil(Math.log10(Math.max(1, ...all)) - 1e-9));
  const low = Math.min(-1, Math.floor(Math.log10(Math.min(1, ...all)) + 1e-9));
  return [Math.max(high - 6, low), high];
}

/** @param {View<DenoiserExplorerTraits>} view */
export function render({ model, el }) {
  const stage = new Stage({ model, el }, TITLES.denoiser);
  const [count, ...shape] = model.get("shape");
  const images = shape.length === 3;
  const steps = model.get("timesteps");
  const T = model.get("num_steps");
  const last = steps.length - 1;
  const bars = typedArray(model, "alpha_bar", Float64Array);
  const all = count * shape.reduce((x, y) => x * y, 1);
  const compared = model.get("floors").byteLength > 0;

  stage.timestep({
    name: "place",
    range: () => [0, last],
    text: () => String(steps[at()]),
    spoken: () => sentence(),
  });
  const row = stage.row();
  if (images && count > 1) {
    /** @type {[number, string][]} */
    const each = Array.from({ length: count }, (_, i) => [i, `image ${i + 1}`]);
    stage.choice({ label: "show", name: "chosen", options: each, place: row });
  } else if (count > 1) {
    stage.slider({
      label: "point",
      name: "chosen",
      min: 0,
      max: count - 1,
      place: row,
      text: (i) => String(i + 1),
      spoken: () => ofThePoint(),
    });
  }
  if (!images && compared) {
    stage.choice({
      label: "arrows",
      name: "arrows",
      place: row,
      options: [
        [ARROWS.BOTH, "model over oracle"],
        [ARROWS.MODEL, "model"],
        [ARROWS.ORACLE, "oracle"],
        [ARROWS.ERROR, "model − oracle"],
      ],
    });
  }
  if (model.widget_manager) noiseButton(stage, row); // a page of its own has no kernel to ask
  const say = stage.line();

  const at = () => clamp(stage.get("place"), 0, last);
  const one = () => clamp(stage.get("chosen"), 0, count - 1);
  /** @returns {[number, number]} */
  const rates = () => [Math.sqrt(bars[at()]), Math.sqrt(1 - bars[at()])];
  function sentence() {
    const { losses, floors, each } = kit.data;
    const [signal, noise] = rates();
    const k = at();
    const mine = images ? `loss of this image ${short(each[k * count + one()])}, ` : "";
    const mean = `${mine}mean loss ${short(losses[k])}`;
    const loss = images && count === 1 ? `loss ${short(losses[k])}` : mean;
    return (
      `t = ${steps[k]} of ${T}: signal ${signal.toFixed(3)}, noise ${noise.toFixed(3)}, ` +
      `${loss}${compared ? `, oracle ${short(floors[k])}` : ""}`
    );
  }
  function ofThePoint() {
    const { eps, eps_hat } = kit.data;
    const p = 2 * one();
    const number = (/** @type {number} */ value) => (value / EPS_SCALE).toFixed(2);
    const pair = (/** @type {Numbers} */ v, /** @type {number} */ i) =>
      `(${number(v[i])}, ${number(v[i + 1])})`;
    return `point ${one() + 1}: ε ${pair(eps, p)}, ε̂ ${pair(eps_hat, at() * all + p)}`;
  }
  const x0 = images ? typedArray(model, "x0", Uint8Array) : typedArray(model, "x0", Float32Array);
  /** @returns {Data} */
  const read = () => ({
    x0,
    eps: typedArray(model, "eps", Int16Array),
    eps_hat: images
      ? typedArray(model, "eps_hat", Uint8Array)
      : typedArray(model, "eps_hat", Int16Array),
    x0_hat: typedArray(model, "x0_hat", Uint8Array),
    each: typedArray(model, "each", Float32Array),
    losses: typedArray(model, "losses", Float32Array),
    floors: typedArray(model, "floors", Float32Array),
  });
  /** @type {Kit} */
  const kit = {
    stage,
    data: read(),
    fresh: true,
    steps,
    shape,
    count,
    all,
    compared,
    at,
    one,
    rates,
    ofThePoint,
  };
  const paintData = images ? imagesOf(kit) : pointsOf(kit, model);

  let drawn = stage.get("noise");
  stage.computesFirst(() => {
    if (stage.get("noise") === drawn) return;
    drawn = stage.get("noise");
    kit.data = read();
    kit.fresh = true;
  });
  stage.paints(["place", "chosen", "arrows", "noise"], (full) => {
    const text = sentence();
    say(images ? text : `${text}; ${ofThePoint()}`);
    paintData(full, text);
    kit.fresh = false;
  });
  return () => stage.end();
}

/**
 * The loss at every step that was asked for, with a marker at t; logarithmic for images.
 * @param {Kit} kit
 * @param {{ width: number, height: number, place: HTMLElement }} size
 */
function lossChart(kit, size) {
  const { stage, steps, at, compared } = kit;
  const last = steps.length - 1;
  const places = Float64Array.from(steps, (_, k) => k);
  const marks = new Set([0, 0.2, 0.4, 0.6, 0.8, 1].map((share) => Math.round(share * last)));
  const powers = kit.shape.length === 3; // the loss of images spans decades
  const chart = stage.chart({
    ...size,
    x: [0, last],
    y: [0, 1],
    xLabel: "t",
    xTicks: [...marks].map((k) => [k, String(steps[k])]),
    margins: [8, 14, 34, 46],
    caption: "loss: mean of (ε̂ − ε)², 1 for a model that always says 0",
  });
  const heights = (/** @type {Float32Array} */ values) =>
    Float64Array.from(values, (v) => (powers ? Math.log10(v || 1e-12) : v));
  function scale() {
    const { losses, floors } = kit.data;
    if (!powers) {
      const top = largest([...losses, ...floors]) * 1.05;
      chart.y = [0, [1.2, 1.6].find((v) => v >= top) ?? 2];
      chart.yTicks = chart.y[1] < 2 ? [0, 0.5, 1, 1.5].filter((v) => v < chart.y[1]) : [0, 1, 2];
      return;
    }
    const [low, high] = decades(losses, floors);
    chart.y = [low, high];
    chart.yTicks = Array.from({ length: high - low + 1 }, (_, i) => {
      const e = low + i;
      return [e, Math.abs(e) > 3 ? `1e${e}` : String(+(10 ** e).toFixed(3))];
    });
  }
  let losses = new Float64Array(0);
  let floors = losses;
  return (/** @type {boolean} */ full, /** @type {string} */ text) => {
    if (kit.fresh) {
      scale();
      losses = heights(kit.data.losses);
      floors = heights(kit.data.floors);
      chart.background = (context) => {
        if (compared) chart.curve(context, places, floors, 1);
        chart.curve(context, places, losses, 0);
        const k = Math.round(0.15 * last);
        const j = Math.round(0.2 * last);
        chart.label(context, "model", k, losses[k], 0, { dx: 0, dy: -13 });
        if (compared) chart.label(context, "oracle (dashed)", j, floors[j], 1, { dx: -80, dy: 17 });
      };
      chart.invalidate();
    }
    chart.frame(full, (context) => {
      chart.marker(context, at());
      if (compared) chart.dot(context, at(), floors[at()], 1, 3.5);
      chart.dot(context, at(), losses[at()], 0);
    });
    const axis = powers ? " on a logarithmic axis" : "";
    chart.describe(`Loss over t${axis}${compared ? ", of model and oracle" : ""}. ${text}`);
  };
}

const PICTURES = [
  ["x_t", "x_t: what the model sees"],
  ["eps", "ε: the noise in it"],
  ["eps_hat", "ε̂: what the model says"],
  ["error", "ε̂ − ε: its error"],
  ["x0_hat", "x̂₀: the image it means"],
];

/**
 * Shows images; returns what paints them.
 * @param {Kit} kit
 */
function imagesOf(kit) {
  const { stage, shape, count, all, at, one, rates } = kit;
  const [, h, w] = shape;
  const box = stage.panels();
  const scale = Math.max(1, Math.floor(147 / Math.max(w, h)));
  const pictures = PICTURES.map(([which, caption]) => ({
    which,
    caption,
    picture: stage.pixels({ width: w, height: h, scale, place: box, caption }),
  }));
  const losses = lossChart(kit, { width: 780, height: 190, place: stage.panels() });
  return (/** @type {boolean} */ full, /** @type {string} */ text) => {
    const { data } = kit;
    const now = rates();
    for (const { which, caption, picture } of pictures) {
      const value = (/** @type {number} */ p) => pictureValue(which, data, now, at() * all, p);
      paintImage(picture.data, w, 0, 0, shape, one(), value);
      picture.put();
      const size = Math.sqrt(data.each[at() * count + one()]).toFixed(2);
      const wrong = which === "error" ? `, root mean square ${size}` : "";
      picture.describe(`Image ${one() + 1}, ${caption}${wrong}. ${text}`);
    }
    losses(full, text);
  };
}

/**
 * Shows points; returns what paints them.
 * @param {Kit} kit
 * @param {View<DenoiserExplorerTraits>["model"]} model
 */
function pointsOf(kit, model) {
  const { stage, all, count, at, one, rates, compared } = kit;
  const reach = model.get("reach");
  const square = { x: [-reach, reach], y: [-reach, reach] };
  const fields = {
    model: typedArray(model, "model_field", Int16Array),
    oracle: typedArray(model, "oracle_field", Int16Array),
  };
  const each = fields.model.length / kit.steps.length;
  const across = Math.sqrt(each / 2);
  const grid = gridOfPoints(reach, across);
  const box = stage.panels();
  const ground = stage.chart({
    width: 340,
    height: 340,
    ...square,
    place: box,
    margins: [4, 4, 20, 28],
    caption: "arrows: ε̂ at each place; dots: the points x_t",
  });
  const side = element("div", { class: "tx-side" });
  const pair = element("div", { class: "tx-panels" });
  box.append(side);
  side.append(pair);
  const small = { width: 213, height: 213, place: pair, margins: [4, 4, 20, 28] };
  const noises = stage.chart({
    ...small,
    x: [-3.6, 3.6],
    y: [-3.6, 3.6],
    caption: `○ true ε, ■ ε̂; lines: ${count > LINES ? "some errors" : "the errors"}`,
  });
  const clean = stage.chart({ ...small, ...square, caption: "○ true x₀, ■ x̂₀" });
  const losses = lossChart(kit, { width: 444, height: 130, place: side });
  const eps = new Float32Array(all);
  const eps_hat = new Float32Array(all);

  /**
   * The arrows of the chosen field on the grid; the oracle's are wide where the model's lie on them.
   * @param {Context} c
   * @param {string} shown
   */
  function paintArrows(c, shown) {
    const { curves } = stage.theme;
    const from = at() * each;
    const model = (/** @type {number} */ p) => fields.model[from + p] / EPS_SCALE;
    const oracle = (/** @type {number} */ p) => fields.oracle[from + p] / EPS_SCALE;
    const thin = { width: 1.5, heads: true };
    if (shown === ARROWS.BOTH) {
      drawArrows(ground, c, grid, across, oracle, { color: curves[1], width: 4, heads: false });
    }
    if (shown === ARROWS.ORACLE) {
      drawArrows(ground, c, grid, across, oracle, { color: curves[1], ...thin });
    } else if (shown === ARROWS.ERROR) {
      const error = (/** @type {number} */ p) => model(p) - oracle(p);
      drawArrows(ground, c, grid, across, error, { color: curves[3], ...thin });
    } else {
      drawArrows(ground, c, grid, across, model, { color: curves[0], ...thin });
    }
  }

  /**
   * Truth and guess of each point; the truth is the same at every t.
   * @param {boolean} full
   * @param {Chart} chart
   * @param {Numbers} truth
   * @param {Numbers} guess
   * @param {boolean} linked
   */
  function paintGuesses(full, chart, truth, guess, linked) {
    chart.background = (c) =>
      inside(chart, c, () => {
        circles(chart, c, truth, stage.theme.curves[1], count > MANY ? 1.5 : 2);
      });
    if (kit.fresh) chart.invalidate();
    const { theme } = stage;
    chart.frame(full, (c) =>
      inside(chart, c, () => {
        if (linked) links(chart, c, truth, guess, theme);
        squares(chart, c, guess, theme.curves[0], count > MANY ? 2 : 3);
        ring(chart, c, truth, one(), theme);
        ring(chart, c, guess, one(), theme, truth);
      }),
    );
  }

  return (/** @type {boolean} */ full, /** @type {string} */ text) => {
    const { data } = kit;
    const from = at() * all;
    const [signal, noise] = rates();
    const { x_t, x0_hat } = pointsAt(data.x0, data.eps, data.eps_hat, from, signal, noise);
    for (let p = 0; p < all; p++) {
      eps[p] = data.eps[p] / EPS_SCALE;
      eps_hat[p] = data.eps_hat[from + p] / EPS_SCALE;
    }
    const shown = compared ? stage.get("arrows") : ARROWS.MODEL;
    ground.frame(full, (c) => {
      inside(ground, c, () => {
        c.globalAlpha = 0.4;
        squares(ground, c, x_t, stage.theme.ink, 3);
        c.globalAlpha = 1;
        paintArrows(c, shown);
        ring(ground, c, x_t, one(), stage.theme);
      });
    });
    paintGuesses(full, noises, eps, eps_hat, true);
    paintGuesses(full, clean, data.x0, x0_hat, false);
    /** @type {Record<string, string>} */
    const whose = {
      [ARROWS.BOTH]: "model, over the oracle's",
      [ARROWS.MODEL]: "model",
      [ARROWS.ORACLE]: "oracle",
      [ARROWS.ERROR]: "model minus those of the oracle",
    };
    ground.describe(
      `Arrows of eps-hat on a grid, those of the ${whose[shown]}, and ${count} points x_t. ${text}`,
    );
    const point = kit.ofThePoint();
    noises.describe(`The true noise of each point and the model's guess. ${point}; ${text}`);
    const [x, y] = [x0_hat[2 * one()], x0_hat[2 * one() + 1]].map((v) => v.toFixed(2));
    clean.describe(
      `The true x_0 of each point and the guess x0-hat: of point ${one() + 1} (${x}, ${y}). ${text}`,
    );
    losses(full, text);
  };
}

/**
 * Paints with everything clipped to the axes of `chart`.
 * @param {Chart} chart
 * @param {Context} context
 * @param {() => void} paint
 */
function inside(chart, context, paint) {
  const { left, top, right, bottom } = chart.box;
  context.save();
  context.beginPath();
  context.rect(left, top, right - left, bottom - top);
  context.clip();
  paint();
  context.restore();
}

/**
 * Arrows from the places of the grid: noise of length 2 spans the distance between two.
 * @param {Chart} chart
 * @param {Context} context
 * @param {Numbers} grid
 * @param {number} across places along each axis
 * @param {(p: number) => number} value the field: x and y of each place
 * @param {{ color: string, width: number, heads: boolean }} style
 */
function drawArrows(chart, context, grid, across, value, { color, width, heads }) {
  const unit = (chart.box.right - chart.box.left) / across / 2;
  context.strokeStyle = color;
  context.lineWidth = width;
  context.beginPath();
  for (let p = 0; p < grid.length; p += 2) {
    let dx = value(p) * unit;
    let dy = -value(p + 1) * unit;
    const length = Math.hypot(dx, dy);
    const most = 2 * unit * LONGEST;
    if (length > most) {
      dx *= most / length;
      dy *= most / length;
    }
    const x = chart.px(grid[p]);
    const y = chart.py(grid[p + 1]);
    context.moveTo(x, y);
    context.lineTo(x + dx, y + dy);
    if (!heads || length < 1) continue;
    const head = Math.min(5, length * 0.45) / Math.min(length, most);
    for (const turn of [0.5, -0.5]) {
      context.moveTo(x + dx - head * (dx - turn * dy), y + dy - head * (dy + turn * dx));
      context.lineTo(x + dx, y + dy);
    }
  }
  context.stroke();
}

/**
 * @param {Chart} chart
 * @param {Context} context
 * @param {Numbers} points
 * @param {string} color
 * @param {number} side
 */
function squares(chart, context, points, color, side) {
  context.fillStyle = color;
  for (let p = 0; p < points.length; p += 2) {
    const [x, y] = [chart.px(points[p]), chart.py(points[p + 1])];
    context.fillRect(x - side / 2, y - side / 2, side, side);
  }
}

/**
 * @param {Chart} chart
 * @param {Context} context
 * @param {Numbers} points
 * @param {string} color
 * @param {number} radius
 */
function circles(chart, context, points, color, radius) {
  context.strokeStyle = color;
  context.lineWidth = 1;
  context.beginPath();
  for (let p = 0; p < points.length; p += 2) {
    const x = chart.px(points[p]);
    const y = chart.py(points[p + 1]);
    context.moveTo(x + radius, y);
    context.arc(x, y, radius, 0, 2 * Math.PI);
  }
  context.stroke();
}

/**
 * Lines from points to others, some of them where there are many.
 * @param {Chart} chart
 * @param {Context} context
 * @param {Numbers} from
 * @param {Numbers} to
 * @param {Theme} theme
 */
function links(chart, context, from, to, theme) {
  context.strokeStyle = theme.ink;
  context.globalAlpha = 0.18;
  context.lineWidth = 1;
  const stride = 2 * Math.ceil(from.length / 2 / LINES); // more would hide what they show
  for (let p = 0; p < from.length; p += stride) {
    // One by one: a path of all takes longer.
    context.beginPath();
    context.moveTo(chart.px(from[p]), chart.py(from[p + 1]));
    context.lineTo(chart.px(to[p]), chart.py(to[p + 1]));
    context.stroke();
  }
  context.globalAlpha = 1;
}

/**
 * A ring around the chosen point, and a line to it from its place in `from`.
 * @param {Chart} chart
 * @param {Context} context
 * @param {Numbers} points
 * @param {number} chosen
 * @param {Theme} theme
 * @param {Numbers | null} [from]
 */
function ring(chart, context, points, chosen, theme, from = null) {
  const x = chart.px(points[2 * chosen]);
  const y = chart.py(points[2 * chosen + 1]);
  context.strokeStyle = theme.ink;
  context.lineWidth = 1.75;
  context.beginPath();
  context.arc(x, y, 6, 0, 2 * Math.PI);
  if (from) {
    context.moveTo(chart.px(from[2 * chosen]), chart.py(from[2 * chosen + 1]));
    context.lineTo(x, y);
  }
  context.stroke();
}

/**
 * The button for which the kernel draws noise and asks the model; it says when it cannot.
 * @param {Stage<DenoiserExplorerTraits>} stage
 * @param {HTMLElement} place
 */
function noiseButton(stage, place) {
  let error = "";
  /** @type {string} */
  let asked = ASK.HELLO;
  const ask = () => {
    if (kernel.waiting) return;
    asked = ASK.NOISE;
    kernel.ask(asked);
  };
  const button = stage.button("New noise", ask, place);
  const note = element("span", { class: "tx-note", role: "status" });
  place.append(note);
  const handlers = {
    [TELL.HEARD]: () => {
      error = "";
    },
    [TELL.FAILED]: (/** @type {{ text: string }} */ { text }) => {
      error = text;
    },
  };
  const show = () => {
    // Not `disabled`: that would take the focus away from whoever has just pressed it.
    button.setAttribute("aria-disabled", String(kernel.waiting));
    if (kernel.gone) note.textContent = "no kernel: run this cell";
    else if (!kernel.waiting) note.textContent = error;
    else if (!kernel.silent) note.textContent = "";
    else if (asked === ASK.NOISE)
      note.textContent = "waiting for the kernel, which is busy or gone";
    else note.textContent = "needs a kernel that is idle: if it stays so, run this cell";
  };
  const kernel = new Kernel(stage, handlers, show);
  kernel.ask(asked);
}

export default { render };
