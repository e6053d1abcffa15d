// Playground: points drawn here, a network trained in the kernel, particles that flow back to them.

/** @import { Context } from "../shared/chart.js" */
/** @import { Numbers, View } from "../shared/types" */
/** @import { PlaygroundTraits } from "../shared/traits" */

import { Kernel } from "../shared/kernel.js";
import { clamp, copied, normalNumbers, short, typedArray } from "../shared/numbers.js";
import { reducedMotion, Stage } from "../shared/stage.js";
import {
  ASK,
  EPS_SCALE,
  NEAR,
  PLANE_EDGE,
  POINTS_MAX,
  POINTS_MIN,
  SECONDS,
  TELL,
  TITLES,
  WHO,
} from "../shared/wire.js";

const INSIDE = PLANE_EDGE - 0.05; // how far out one can draw
const BRUSH = 0.06; // spread of points under the pen
const SPOT = 0.15; // and of those that are added
const ADDED = 25;
const EVERY = 5; // pixels that the pen moves between two drops of points
const DOT = 2; // radius of a particle in pixels
const PATHS = 20;
const LOSS_STEPS = 500; // the loss curve's axis at first
const BY_HAND = "drawn by hand";
const EMPTY = new DataView(new ArrayBuffer(0));

/**
 * A walk of particles as it came: `states` int16, one row for each of the falling `steps`.
 * @typedef {object} Walk
 * @property {number[]} steps
 * @property {Int16Array} states
 */

/**
 * What a plane shows.
 * @typedef {object} Scene
 * @property {Float32Array} xs the particles, pairs
 * @property {Walk} [walked] the walk that they are on
 * @property {Int16Array} data the points that they belong to
 * @property {string} name
 * @property {number} t
 * @property {number} near the share of particles near the data
 */

/** @typedef {"network" | "oracle"} Walker */

/**
 * Coordinates as int16, two a point, from numbers.
 * @param {number[]} coordinates
 */
export function packed(coordinates) {
  return Int16Array.from(coordinates, (v) => Math.round(clamp(v, -INSIDE, INSIDE) * EPS_SCALE));
}

/**
 * x_t = signal x_0 + noise eps for the particles `out`, the points taken in turn.
 * @param {Float32Array} out
 * @param {Numbers} points int16
 * @param {Numbers} eps
 * @param {number} alphaBar
 */
export function noisedPoints(out, points, eps, alphaBar) {
  const signal = Math.sqrt(alphaBar) / EPS_SCALE;
  const noise = Math.sqrt(1 - alphaBar);
  for (let i = 0; i < out.length; i++) out[i] = signal * points[i % points.length] + noise * eps[i];
  return out;
}

/**
 * Which of the falling `steps` was the last to be reached on the way down to t, as an index.
 * @param {number[]} steps
 * @param {number} t
 */
export function reached(steps, t) {
  let low = 0;
  let high = steps.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (steps[middle] >= t) low = middle;
    else high = middle - 1;
  }
  return low;
}

/**
 * Where the particles of a walk are at t: on a straight line between the steps around it.
 * @param {Float32Array} out
 * @param {Walk} walk
 * @param {number} t
 */
export function between(out, { steps, states }, t) {
  const i = reached(steps, t);
  const n = out.length;
  const next = Math.min(i + 1, steps.length - 1);
  const share = next > i ? clamp((steps[i] - t) / (steps[i] - steps[next]), 0, 1) : 0;
  for (let k = 0; k < n; k++) {
    const from = states[i * n + k];
    out[k] = (from + share * (states[next * n + k] - from)) / EPS_SCALE;
  }
  return out;
}

/**
 * The share of the particles `xs` (pairs) with one of `points` (pairs of int16) within `radius`.
 * @param {Numbers} xs
 * @param {Numbers} points
 * @param {number} radius
 */
export function shareNear(xs, points, radius) {
  const limit = radius * radius;
  let near = 0;
  for (let i = 0; i < xs.length; i += 2) {
    for (let k = 0; k < points.length; k += 2) {
      const dx = xs[i] - points[k] / EPS_SCALE;
      const dy = xs[i + 1] - points[k + 1] / EPS_SCALE;
      if (dx * dx + dy * dy <= limit) {
        near++;
        break;
      }
    }
  }
  return xs.length ? near / (xs.length / 2) : 0;
}

/** A canvas with the plane: data as crosses, particles as dots. */
class Plane {
  /**
   * @param {Stage<PlaygroundTraits>} stage
   * @param {HTMLElement} place
   * @param {number} color of the palette
   */
  constructor(stage, place, color) {
    this.stage = stage;
    this.color = color;
    this.chart = stage.chart({
      width: 294,
      height: 286,
      place,
      caption: " ",
      x: [-PLANE_EDGE, PLANE_EDGE],
      y: [-PLANE_EDGE, PLANE_EDGE],
      xTicks: [-2, 0, 2],
      yTicks: [-2, 0, 2],
      margins: [6, 8, 20, 26], // equal axes: the margins leave a square
    });
    this.figure = /** @type {HTMLElement} */ (this.chart.canvas.parentElement);
    this.caption = /** @type {HTMLElement} */ (this.figure.firstElementChild);
    /** @type {Int16Array | null} */
    this.data = null;
    this.chart.background = (context) => this.crosses(context);
  }

  /** @param {string} text */
  say(text) {
    if (this.caption.textContent !== text) this.caption.textContent = text;
  }

  /** @param {Context} context */
  crosses(context) {
    const { chart, data } = this;
    const arm = 3.6;
    if (!data) return;
    context.strokeStyle = this.stage.theme.curves[1];
    context.lineWidth = 1.2;
    context.beginPath();
    for (let k = 0; k < data.length; k += 2) {
      const x = chart.px(data[k] / EPS_SCALE);
      const y = chart.py(data[k + 1] / EPS_SCALE);
      context.moveTo(x - arm, y - arm);
      context.lineTo(x + arm, y + arm);
      context.moveTo(x + arm, y - arm);
      context.lineTo(x - arm, y + arm);
    }
    context.stroke();
  }

  /**
   * @param {Context} context
   * @param {Numbers} xs
   */
  dots(context, xs) {
    const { chart } = this;
    const { left, top, right, bottom } = chart.box;
    context.fillStyle = this.stage.theme.curves[this.color];
    context.beginPath();
    for (let i = 0; i < xs.length; i += 2) {
      const x = chart.px(xs[i]);
      const y = chart.py(xs[i + 1]);
      if (x < left || x > right || y < top || y > bottom) continue;
      context.moveTo(x + DOT, y);
      context.arc(x, y, DOT, 0, 2 * Math.PI);
    }
    context.fill();
  }

  /**
   * The way that the first particles have come, from T down to t.
   * @param {Context} context
   * @param {Walk} walk
   * @param {number} t
   * @param {Numbers} xs
   */
  paths(context, { steps, states }, t, xs) {
    const { chart } = this;
    const { left, top, right, bottom } = chart.box;
    const n = xs.length;
    const last = reached(steps, t);
    context.save();
    context.beginPath();
    context.rect(left, top, right - left, bottom - top);
    context.clip();
    context.strokeStyle = this.stage.theme.ink;
    context.lineWidth = 1;
    context.globalAlpha = 0.55;
    context.beginPath();
    for (let p = 0; p < 2 * PATHS; p += 2) {
      for (let i = 0; i <= last; i++) {
        const x = chart.px(states[i * n + p] / EPS_SCALE);
        const y = chart.py(states[i * n + p + 1] / EPS_SCALE);
        if (i) context.lineTo(x, y);
        else context.moveTo(x, y);
      }
      context.lineTo(chart.px(xs[p]), chart.py(xs[p + 1]));
    }
    context.stroke();
    context.restore();
  }

  /**
   * @param {Context} context
   * @param {number} x
   * @param {number} y
   */
  ring(context, x, y) {
    context.strokeStyle = this.stage.theme.ink;
    context.lineWidth = 2;
    context.beginPath();
    context.arc(this.chart.px(x), this.chart.py(y), 9, 0, 2 * Math.PI);
    context.stroke();
  }

  /**
   * Where on the plane the pointer is.
   * @param {{ clientX: number, clientY: number }} event
   */
  at(event) {
    const { chart } = this;
    const { left, top, right, bottom } = chart.box;
    const rect = chart.canvas.getBoundingClientRect();
    const zoom = chart.width / rect.width;
    const x = ((event.clientX - rect.left) * zoom - left) / (right - left);
    const y = ((event.clientY - rect.top) * zoom - top) / (bottom - top);
    return [(2 * x - 1) * PLANE_EDGE, (1 - 2 * y) * PLANE_EDGE];
  }
}

/**
 * Mouse, finger or pen: `drop(x, y, size)` along its way on the plane, `lifted()` at the end.
 * @param {Stage<PlaygroundTraits>} stage
 * @param {Plane} plane
 * @param {(x: number, y: number, size: number) => void} drop
 * @param {() => void} lifted
 */
function drawsOn(stage, plane, drop, lifted) {
  const { canvas } = plane.chart;
  canvas.style.touchAction = "none";
  canvas.style.cursor = "crosshair";
  /** @type {{ id: number, x: number, y: number } | null} */
  let pen = null;
  /**
   * @param {{ clientX: number, clientY: number }} event
   * @param {number} size
   */
  const dropAt = (event, size) => {
    const [x, y] = plane.at(event);
    if (Math.max(Math.abs(x), Math.abs(y)) < PLANE_EDGE) drop(x, y, size);
  };
  stage.listen(canvas, "pointerdown", (event) => {
    if (event.button !== 0 || pen) return;
    event.preventDefault();
    canvas.setPointerCapture(event.pointerId);
    pen = { id: event.pointerId, x: event.clientX, y: event.clientY };
    dropAt(event, 3);
  });
  stage.listen(canvas, "pointermove", (event) => {
    if (pen?.id !== event.pointerId) return;
    const events = event.getCoalescedEvents?.() ?? [];
    for (const one of events.length ? events : [event]) {
      const far = Math.hypot(one.clientX - pen.x, one.clientY - pen.y);
      const drops = Math.floor(far / EVERY);
      const from = { ...pen };
      for (let i = 1; i <= drops; i++) {
        // Along the line, also where the hand was fast.
        const share = (i * EVERY) / far;
        pen.x = from.x + share * (one.clientX - from.x);
        pen.y = from.y + share * (one.clientY - from.y);
        dropAt({ clientX: pen.x, clientY: pen.y }, 2);
      }
    }
  });
  for (const type of /** @type {const} */ (["pointerup", "pointercancel"])) {
    stage.listen(canvas, type, (event) => {
      if (pen?.id !== event.pointerId) return;
      pen = null;
      lifted();
    });
  }
}

const percent = (/** @type {number} */ share) => `${Math.round(100 * share)} %`;

/**
 * @param {Numbers} a
 * @param {Int16Array} b
 */
const same = (a, b) => a.length === b.length && b.every((v, i) => v === a[i]);

/** @param {View<PlaygroundTraits>} view */
export function render({ model, el }) {
  const stage = new Stage({ model, el }, TITLES.playground);
  const T = model.get("num_steps");
  const count = model.get("particles");
  const bars = typedArray(model, "alpha_bar", Float32Array);

  // What the kernel has told.
  const known = {
    /** @type {Partial<Record<Walker, Walk & { name: string, points: Int16Array }>>} */
    walks: {},
    /** @type {[number, number][]} */
    losses: [],
    /** Where the particles end now, while training. @type {Int16Array | null} */
    preview: null,
    previewAt: 0,
    trained: false,
    step: 0,
    elapsed: 0,
    /** @type {number | null} */
    floor: null,
  };
  let wantsPlay = false;
  let status = "";

  // What one draws with.
  const points = () => typedArray(model, "drawn", Int16Array);
  let seed = 1;
  /** @param {number[]} coordinates */
  function draw(coordinates) {
    const now = points();
    const room = POINTS_MAX - now.length / 2;
    stage.set("shape", "");
    if (room <= 0) return say(`That is all: at most ${POINTS_MAX} points. Clear begins anew.`);
    const more = packed(coordinates.slice(0, 2 * room));
    const all = new Int16Array(now.length + more.length);
    all.set(now);
    all.set(more, now.length);
    stage.set("drawn", new DataView(all.buffer));
  }
  /**
   * Coordinates of `size` points around (x, y).
   * @param {number} x
   * @param {number} y
   * @param {number} size
   * @param {number} spread
   */
  const around = (x, y, size, spread) =>
    Array.from(normalNumbers(seed++, 2 * size), (e, i) => (i % 2 ? y : x) + spread * e);
  const { cursor, cursorControls } = drawingControls();

  // What the kernel does.
  const work = stage.row();
  const train = stage.button("Train", pressTrain, work);
  stage.choice({
    label: "for",
    name: "seconds",
    place: work,
    options: SECONDS.map((s) => [s, `${s} seconds`]),
  });
  const walk = stage.choice({
    label: "walk back by",
    name: "walk",
    options: model.get("walk_names").map((name) => [name, name]),
    place: work,
  });
  stage.listen(walk, "change", askForWalk);
  const pressNoise = () => {
    stage.set("noise", stage.get("noise") + 1);
    askForWalk();
  };
  const newNoise = stage.button("New noise", pressNoise, work);
  const oracle = stage.toggle({ label: "exact oracle", name: "oracle", place: work });
  stage.listen(oracle, "change", () => {
    if (stage.get("oracle")) askForWalk();
    else stage.redraw();
  });
  stage.toggle({ label: `paths of ${PATHS}`, name: "paths", place: work });

  const time = stage.row();
  const { button: play } = stage.timestep({
    name: "t",
    range: () => [0, T],
    backwards: true,
    seconds: 6,
    place: time,
    spoken: () => shares,
  });
  const showStatus = stage.line({ role: "status" });
  const say = (/** @type {string} */ text) => {
    status = text;
    showStatus(text);
  };
  const line = stage.line();
  const box = stage.panels();
  const planes = { network: new Plane(stage, box, 0), oracle: new Plane(stage, box, 2) };
  planes.oracle.chart.describe("The plane of the exact oracle, not shown.");
  const loss = stage.chart({
    width: 190,
    height: 286,
    place: box,
    x: [0, LOSS_STEPS],
    y: [0, 1.1],
    xTicks: [0, LOSS_STEPS / 2, LOSS_STEPS],
    xLabel: "training step",
    caption: "loss, and its floor (dashed)",
    margins: [6, 18, 34, 30],
  });
  const eps = normalNumbers(4242, 2 * count);
  const none = new Float32Array(0);
  const xs = { network: new Float32Array(2 * count), oracle: new Float32Array(2 * count) };

  /** Controls that draw points; the cursor's position, and the controls that move it or use it. */
  function drawingControls() {
    const names = model.get("shape_names");
    const counts = model.get("shape_counts");
    const ready = typedArray(model, "shapes", Int16Array);
    /** @type {[string, string][]} */
    const options = names.map((name) => [name, name]);
    const shapes = stage.choice({
      label: "points",
      name: "shape",
      options: [...options, ["", BY_HAND]],
    });
    stage.listen(shapes, "change", () => {
      const which = names.indexOf(stage.get("shape"));
      const start = 2 * counts.slice(0, Math.max(0, which)).reduce((a, b) => a + b, 0);
      const chosen = which < 0 ? new Int16Array(0) : ready.slice(start, start + 2 * counts[which]);
      stage.set("drawn", new DataView(chosen.buffer));
      drawingEnded();
    });
    stage.button("Clear", () => {
      stage.set("shape", "");
      stage.set("drawn", EMPTY);
      drawingEnded();
    });
    const range = {
      min: 0.1 - PLANE_EDGE,
      max: PLANE_EDGE - 0.1,
      step: 0.1,
      text: (/** @type {number} */ v) => v.toFixed(1),
    };
    const x = stage.slider({ label: "cursor x", name: "cursor_x", ...range });
    const y = stage.slider({ label: "y", name: "cursor_y", ...range });
    y.setAttribute("aria-label", "cursor y");
    const cursor = () => /** @type {const} */ ([stage.get("cursor_x"), stage.get("cursor_y")]);
    const add = stage.button("Add points", () => {
      draw(around(...cursor(), ADDED, SPOT));
      drawingEnded();
    });
    /** @type {Element[]} */
    const cursorControls = [x, y, add];
    for (const control of cursorControls) {
      for (const type of /** @type {const} */ (["focus", "blur"])) {
        stage.listen(control, type, () => stage.redraw());
      }
    }
    return { cursor, cursorControls };
  }

  function drawingEnded() {
    if (!stage.get("oracle")) return;
    wantsPlay = false;
    ask(ASK.WALK);
  }

  function pressTrain() {
    if (kernel.work === ASK.TRAIN) return ask(ASK.STOP);
    if (points().length < 2 * POINTS_MIN) return say("Draw at least two points first.");
    wantsPlay = true;
    ask(ASK.TRAIN);
  }

  function askForWalk() {
    wantsPlay = true;
    if (known.trained || stage.get("oracle")) ask(ASK.WALK);
  }

  /**
   * Sends a request with all that it needs, unless nobody answers.
   * @param {string} kind
   */
  function ask(kind) {
    if (kernel.silent) return show();
    const content = {
      walk: stage.get("walk"),
      noise: stage.get("noise"),
      oracle: stage.get("oracle"),
      seconds: stage.get("seconds"),
    };
    kernel.ask(kind, content, [points().buffer]);
  }

  /** The words and the buttons that depend on the kernel. */
  function show() {
    train.textContent = kernel.work === ASK.TRAIN ? "Stop" : "Train";
    for (const control of [train, newNoise]) {
      control.setAttribute("aria-disabled", String(kernel.silent));
    }
    if (kernel.silent) {
      say(
        kernel.work
          ? "No word from the kernel: it is busy, or was restarted (then run this cell again)."
          : "No answer from the kernel: it is busy with another cell, or there is none (then run " +
              "this cell). You can draw; training and walking wait.",
      );
    } else if (status.startsWith("No ")) say("The kernel is there again.");
    stage.redraw();
  }

  /** @param {{ step: number, elapsed: number, floor: number | null }} content */
  function note({ step, elapsed, floor }) {
    Object.assign(known, { step, elapsed, floor });
  }
  /** @param {DataView} data */
  function addLosses(data) {
    const pairs = copied(data, Float32Array);
    for (let i = 0; i < pairs.length; i += 2) known.losses.push([pairs[i], pairs[i + 1]]);
    const end = known.losses.at(-1)?.[0] ?? 0;
    let wide = LOSS_STEPS;
    while (wide < end) wide *= 2;
    if (wide === loss.x[1]) return;
    loss.x = [0, wide];
    loss.xTicks = [0, wide / 2, wide];
    loss.invalidate();
  }

  /** @type {import("../shared/kernel.js").Handlers} */
  const handlers = {
    [TELL.STATE](content, [losses]) {
      kernel.work = "";
      if (content.running) kernel.work = content.training ? ASK.TRAIN : ASK.WALK;
      known.losses = [];
      addLosses(losses);
      if (content.step !== undefined) {
        note(content);
        known.trained = !content.training;
      }
      const idle = known.trained
        ? `Trained for ${known.step} steps.`
        : "Draw on the left plane, or choose points; then press Train.";
      say(kernel.work ? "Working." : idle);
    },
    [TELL.STARTED](content) {
      kernel.work = ASK.TRAIN;
      known.losses = [];
      known.preview = null;
      known.trained = false;
      delete known.walks.network;
      loss.x = [0, LOSS_STEPS];
      loss.xTicks = [0, LOSS_STEPS / 2, LOSS_STEPS];
      loss.invalidate();
      note(content);
      if (!reducedMotion()) stage.set("t", 0);
      const seconds = short(content.seconds);
      say(`Training for ${seconds} seconds. The dots show where its particles end now.`);
    },
    [TELL.PROGRESS](content, [losses, preview]) {
      note(content);
      addLosses(losses);
      if (!preview.byteLength) return;
      known.preview = copied(preview, Int16Array);
      known.previewAt = content.step;
    },
    [TELL.TRAINED](content) {
      note(content);
      known.trained = true;
      kernel.work = ASK.WALK;
      const stopped = content.stopped ? " (stopped)" : "";
      say(
        `Trained for ${content.step} steps in ${short(content.elapsed)} seconds${stopped}. ` +
          "The particles are on their way.",
      );
    },
    [TELL.WALKING]({ who }) {
      kernel.work = ASK.WALK;
      say(`The particles of the ${who} are on their way.`);
    },
    [TELL.WALKED](content, [states, points]) {
      known.walks[/** @type {Walker} */ (content.who)] = {
        steps: content.steps,
        name: content.walk,
        states: copied(states, Int16Array),
        points: copied(points, Int16Array),
      };
      known.preview = null;
    },
    [TELL.IDLE]() {
      const worked = kernel.work;
      kernel.work = "";
      if (worked && !status.startsWith("It did not")) say(summary());
      if (wantsPlay && worked) {
        if (reducedMotion()) stage.set("t", 0);
        else if (play.textContent === "Play") {
          stage.set("t", T);
          play.click();
        }
      }
      wantsPlay = false;
    },
    [TELL.REFUSED]({ text }) {
      wantsPlay = false; // the rest goes on
      say(`It did not work: ${text}.`);
    },
    [TELL.FAILED]({ text }) {
      kernel.work = "";
      say(`It did not work: ${text}.`);
    },
  };
  const kernel = new Kernel(stage, handlers, show);

  function summary() {
    const trained = `Trained for ${known.step} steps in ${short(known.elapsed)} seconds. `;
    const advice = `Play, or drag t: from noise (t = ${T}) back to data (t = 0).`;
    return `${known.trained ? trained : ""}${advice}`;
  }

  /**
   * What a plane shows now.
   * @param {Walker} who
   * @param {Int16Array} data
   * @returns {Scene}
   */
  function scene(who, data) {
    const t = clamp(stage.get("t"), 0, T);
    const walked = known.walks[who];
    const near = 0;
    if (who === WHO.NETWORK && known.preview) {
      const now = Float32Array.from(known.preview, (v) => v / EPS_SCALE);
      return { xs: now, data, name: `network after ${known.previewAt} steps`, t: 0, near };
    }
    if (walked) {
      between(xs[who], walked, t);
      const name = `${who}, ${walked.name}`;
      return { xs: xs[who], walked, data: walked.points, name, t, near };
    }
    if (who === WHO.ORACLE) {
      return { xs: none, data, name: "oracle: its walk comes from the kernel", t, near };
    }
    if (!data.length) return { xs: none, data, name: "none yet: draw here", t, near };
    noisedPoints(xs[who], data, eps, bars[t]);
    return { xs: xs[who], data, name: "the data, noised to t", t, near };
  }

  let shares = ""; // how many particles are near the data, in words
  /** @type {[Walker, Scene][]} */
  let scenes = [];
  stage.computesFirst(() => {
    const data = points();
    scenes = [[WHO.NETWORK, scene(WHO.NETWORK, data)]];
    if (stage.get("oracle")) scenes.push([WHO.ORACLE, scene(WHO.ORACLE, data)]);
    const parts = [`t = ${clamp(stage.get("t"), 0, T)} of ${T}`];
    for (const [who, now] of scenes) {
      now.near = shareNear(now.xs, now.data, NEAR);
      const noised = who === WHO.NETWORK && !known.walks.network && !known.preview;
      if (now.xs.length) parts.push(`${noised ? "data, noised" : who}: ${percent(now.near)} near`);
    }
    shares = data.length ? parts.join("; ") : "no points yet";
  });

  /** @type {DataView | null} */
  let lastDrawn = null;
  /** @param {boolean} full */
  function paintPlanes(full) {
    const drawn = stage.get("drawn");
    const data = points();
    const root = /** @type {Document | ShadowRoot} */ (el.getRootNode());
    const focused = root.activeElement !== null && cursorControls.includes(root.activeElement);
    planes.oracle.figure.hidden = !stage.get("oracle");
    for (const [who, now] of scenes) {
      const plane = planes[who];
      const { chart } = plane;
      if (drawn !== lastDrawn || !plane.data) {
        plane.data = data;
        chart.invalidate();
      }
      plane.say(`✕ data, ● ${now.name}`);
      chart.frame(full, (c) => {
        if (now.walked && stage.get("paths")) plane.paths(c, now.walked, now.t, now.xs);
        plane.dots(c, now.xs);
        if (focused && who === WHO.NETWORK) plane.ring(c, ...cursor());
      });
      const changed = now.walked && !same(now.data, data);
      const particles =
        `, and ${now.xs.length / 2} particles, drawn as dots (${now.name}), at t = ${now.t}; ` +
        `${percent(now.near)} lie near the data, within ${NEAR}.`;
      chart.describe(
        `${data.length / 2} data points, drawn as crosses${now.xs.length ? particles : "."}` +
          `${changed ? " The points have changed since." : ""}`,
      );
    }
    lastDrawn = drawn;
  }

  /**
   * Paints the loss curve; returns what it shows, in words.
   * @param {boolean} full
   */
  function paintLoss(full) {
    const { losses, floor } = known;
    loss.frame(full, (c) => {
      if (floor !== null) {
        loss.curve(c, loss.x, [floor, floor], 1, 1.5);
        loss.label(c, `floor ${floor.toFixed(2)}`, loss.x[1], floor, 1, { dy: 12 });
      }
      if (losses.length) {
        loss.curve(
          c,
          losses.map(([step]) => step),
          losses.map(([, value]) => value),
          0,
        );
      }
    });
    const recent = losses.slice(-10);
    const mean = recent.reduce((sum, [, value]) => sum + value, 0) / recent.length;
    const lowest = floor?.toFixed(2) ?? "not known";
    const learned = losses.length
      ? `step ${known.step}, loss ${mean.toFixed(2)}, floor ${lowest}`
      : "nothing trained yet";
    loss.describe(`Loss by training step: ${learned}.`);
    return learned;
  }

  stage.paints(["t", "drawn", "shape", "oracle", "paths", "cursor_x", "cursor_y"], (full) => {
    paintPlanes(full);
    const learned = paintLoss(full);
    const walked = known.walks.network;
    const stale = walked && !same(walked.points, points());
    line(`${shares}; ${learned}${stale ? "; trained on other points: press Train" : ""}`);
  });

  const { network } = planes;
  drawsOn(stage, network, (x, y, size) => draw(around(x, y, size, BRUSH)), drawingEnded);

  show();
  kernel.ask(ASK.HELLO);
  return () => stage.end();
}

export default { render };
