// Playground: points drawn here, a network trained in the kernel, particles that flow back to them.

const SCALE = 4096; // int16 for one unit of the plane
const EDGE = 3, INSIDE = 2.95; // the plane, and how far out one can draw
const NEAR = 0.15; // a particle this close to a point lies near the data
const BRUSH = 0.06, SPOT = 0.15; // spread of points under the pen, and of those that are added
const EVERY = 5; // pixels that the pen moves between two drops of points
const ADDED = 25;
const DOT = 2; // radius of a particle in pixels
const PATHS = 20;
const PATIENCE = 1500, LONGER = 5000; // ms until the kernel counts as silent, idle and at work

/** Coordinates as int16, two a point, from numbers. */
function packed(coordinates) {
  const bytes = Int16Array.from(coordinates,
    (v) => Math.round(clamp(v, -INSIDE, INSIDE) * SCALE));
  return new DataView(bytes.buffer);
}

/** x_t = signal x_0 + noise eps for `count` particles, the points taken in turn. */
function noisedPoints(out, points, eps, alphaBar) {
  const signal = Math.sqrt(alphaBar) / SCALE, noise = Math.sqrt(1 - alphaBar);
  for (let i = 0; i < out.length; i++) out[i] = signal * points[i % points.length] + noise * eps[i];
  return out;
}

/** Which of the falling `steps` was the last to be reached on the way down to t, as an index. */
function reached(steps, t) {
  let low = 0, high = steps.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (steps[middle] >= t) low = middle;
    else high = middle - 1;
  }
  return low;
}

/** Where the particles of a walk are at t: on a straight line between the steps around it. */
function between(out, { steps, states }, t) {
  const i = reached(steps, t), n = out.length, next = Math.min(i + 1, steps.length - 1);
  const share = next > i ? clamp((steps[i] - t) / (steps[i] - steps[next]), 0, 1) : 0;
  for (let k = 0; k < n; k++) {
    const from = states[i * n + k];
    out[k] = (from + share * (states[next * n + k] - from)) / SCALE;
  }
  return out;
}

/** The share of the particles `xs` (pairs) with one of `points` (pairs of int16) within `radius`. */
function shareNear(xs, points, radius) {
  const limit = radius * radius;
  let near = 0;
  for (let i = 0; i < xs.length; i += 2) {
    for (let k = 0; k < points.length; k += 2) {
      const dx = xs[i] - points[k] / SCALE, dy = xs[i + 1] - points[k + 1] / SCALE;
      if (dx * dx + dy * dy <= limit) { near++; break; }
    }
  }
  return xs.length ? near / (xs.length / 2) : 0;
}

/** A canvas with the plane: data as crosses, particles as dots. */
class Plane {
  constructor(stage, place, color) {
    this.stage = stage;
    this.color = color;
    this.chart = stage.chart({ width: 294, height: 286, place, caption: " ",
      x: [-EDGE, EDGE], y: [-EDGE, EDGE], xTicks: [-2, 0, 2], yTicks: [-2, 0, 2],
      margins: [6, 8, 20, 26] });  // equal axes: the margins leave a square
    this.figure = this.chart.canvas.parentElement;
    this.heading = this.figure.querySelector("figcaption");
    this.data = null;
    this.chart.still = (context) => this.crosses(context);
  }

  crosses(context) {
    const { chart, data } = this, arm = 3.6;
    if (!data) return;
    context.strokeStyle = this.stage.theme.curves[1];
    context.lineWidth = 1.2;
    context.beginPath();
    for (let k = 0; k < data.length; k += 2) {
      const x = chart.px(data[k] / SCALE), y = chart.py(data[k + 1] / SCALE);
      context.moveTo(x - arm, y - arm);
      context.lineTo(x + arm, y + arm);
      context.moveTo(x + arm, y - arm);
      context.lineTo(x - arm, y + arm);
    }
    context.stroke();
  }

  dots(context, xs) {
    const { chart } = this, { left, top, right, bottom } = chart.box;
    context.fillStyle = this.stage.theme.curves[this.color];
    context.beginPath();
    for (let i = 0; i < xs.length; i += 2) {
      const x = chart.px(xs[i]), y = chart.py(xs[i + 1]);
      if (x < left || x > right || y < top || y > bottom) continue;
      context.moveTo(x + DOT, y);
      context.arc(x, y, DOT, 0, 2 * Math.PI);
    }
    context.fill();
  }

  /** The way that the first particles have come, from T down to t. */
  lines(context, { steps, states }, t, xs) {
    const { chart } = this, { left, top, right, bottom } = chart.box, n = xs.length;
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
      context.moveTo(chart.px(states[p] / SCALE), chart.py(states[p + 1] / SCALE));
      for (let i = 1; i <= last; i++) {
        context.lineTo(chart.px(states[i * n + p] / SCALE), chart.py(states[i * n + p + 1] / SCALE));
      }
      context.lineTo(chart.px(xs[p]), chart.py(xs[p + 1]));
    }
    context.stroke();
    context.restore();
  }

  ring(context, x, y) {
    context.strokeStyle = this.stage.theme.ink;
    context.lineWidth = 2;
    context.beginPath();
    context.arc(this.chart.px(x), this.chart.py(y), 9, 0, 2 * Math.PI);
    context.stroke();
  }

  /** Where on the plane the pointer is. */
  at(event) {
    const { chart } = this, { left, top, right, bottom } = chart.box;
    const rect = chart.canvas.getBoundingClientRect(), zoom = chart.width / rect.width;
    const x = ((event.clientX - rect.left) * zoom - left) / (right - left);
    const y = ((event.clientY - rect.top) * zoom - top) / (bottom - top);
    return [(2 * x - 1) * EDGE, (1 - 2 * y) * EDGE];
  }
}

/** Mouse, finger or pen: `drop(x, y, size)` along its way on the plane, `lifted()` at the end. */
function drawsOn(stage, plane, drop, lifted) {
  const { canvas } = plane.chart;
  canvas.style.touchAction = "none";
  canvas.style.cursor = "crosshair";
  let pen = null;
  const dropAt = (event, size) => {
    const [x, y] = plane.at(event);
    if (Math.max(Math.abs(x), Math.abs(y)) < EDGE) drop(x, y, size);
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
      const drops = Math.floor(far / EVERY), from = { ...pen };
      for (let i = 1; i <= drops; i++) {  // along the line, also where the hand was fast
        const share = (i * EVERY) / far;
        pen.x = from.x + share * (one.clientX - from.x);
        pen.y = from.y + share * (one.clientY - from.y);
        dropAt({ clientX: pen.x, clientY: pen.y }, 2);
      }
    }
  });
  for (const type of ["pointerup", "pointercancel"]) {
    stage.listen(canvas, type, (event) => {
      if (pen?.id !== event.pointerId) return;
      pen = null;
      lifted();
    });
  }
}

/** The line to the kernel: what is asked, and whether anybody answers. */
class Kernel {
  constructor(stage, changed) {
    this.model = stage.model;
    this.stage = stage;
    this.view = Math.random().toString(36).slice(2);
    this.changed = changed;  // called when the kernel falls silent
    this.running = "";       // "training", "walking" or nothing
    this.silent = false;
    this.timer = 0;
  }

  /** Sends a wish with all that it needs, and watches for an answer. */
  ask(kind) {
    if (this.silent) return this.changed();
    const { model, stage, view } = this, content = { kind, view };
    clearTimeout(stage.saving);  // the values go first
    model.save_changes();
    for (const name of ["walk", "noise", "oracle", "seconds"]) content[name] = model.get(name);
    try {
      const { buffer, byteOffset, byteLength } = model.get("drawn");
      model.send(content, undefined, [buffer.slice(byteOffset, byteOffset + byteLength)]);
    } catch {  // no kernel behind the page
      this.silent = true;
    }
    this.wait();
  }

  wait() {
    clearTimeout(this.timer);
    if (this.silent) return this.changed();
    const patience = this.running ? LONGER : PATIENCE;
    this.timer = setTimeout(() => { this.silent = true; this.changed(); }, patience);
  }

  heard() {
    clearTimeout(this.timer);
    this.silent = false;
  }

  end() {
    clearTimeout(this.timer);
    const { model, view } = this;
    try { model.send({ kind: "bye", view }); } catch { /* no kernel, nobody to tell */ }
  }
}

const percent = (share) => `${Math.round(100 * share)} %`;
const OWN = "drawn by hand";

function render({ model, el }) {
  const stage = new Stage({ model, el }, "Playground");
  const T = model.get("num_steps"), count = model.get("particles"), most = model.get("most_points");
  const bars = numbers(model, "alpha_bar", Float32Array);
  const names = model.get("shape_names"), counts = model.get("shape_counts");
  const ready = numbers(model, "shapes", Int16Array);
  const kernel = new Kernel(stage, () => show()), ask = (kind) => kernel.ask(kind);
  const known = { walks: {}, losses: [], look: null, lookAt: 0 };  // what the kernel has told
  let wantsPlay = false, told = "";

  // What one draws with.
  const points = () => numbers(model, "drawn", Int16Array);
  let seed = 1;
  function draw(coordinates) {
    const now = points(), room = most - now.length / 2;
    stage.set("shape", "");
    if (room <= 0) return say(`That is all: at most ${most} points. Clear begins anew.`);
    const more = new Int16Array(packed(coordinates.slice(0, 2 * room)).buffer);
    const all = new Int16Array(now.length + more.length);
    all.set(now);
    all.set(more, now.length);
    stage.set("drawn", new DataView(all.buffer));
  }
  const around = (x, y, size, spread) => Array.from(normalNumbers(seed++, 2 * size),
    (e, i) => (i % 2 ? y : x) + spread * e);

  const shapes = stage.choice({ label: "points", name: "shape",
    options: [...names, ["", OWN]] });
  stage.listen(shapes, "change", () => {
    const which = names.indexOf(model.get("shape"));
    const start = 2 * counts.slice(0, Math.max(0, which)).reduce((a, b) => a + b, 0);
    const chosen = which < 0 ? new Int16Array(0) : ready.slice(start, start + 2 * counts[which]);
    stage.set("drawn", new DataView(chosen.buffer));
    changed();
  });
  stage.button("Clear", () => {
    stage.set("shape", "");
    stage.set("drawn", new DataView(new ArrayBuffer(0)));
    changed();
  });
  const place = { min: -2.9, max: 2.9, step: 0.1, says: (v) => v.toFixed(1) };
  const cursor = [
    stage.slider({ label: "cursor x", name: "cursor_x", ...place }),
    stage.slider({ label: "y", name: "cursor_y", ...place }),
  ];
  cursor[1].setAttribute("aria-label", "cursor y");
  cursor.push(stage.button("Add points", () => {
    draw(around(model.get("cursor_x"), model.get("cursor_y"), ADDED, SPOT));
    changed();
  }));
  for (const control of cursor) {
    for (const type of ["focus", "blur"]) stage.listen(control, type, () => stage.redraw());
  }

  // What the kernel does.
  const work = stage.row();
  const train = stage.button("Train", () => {
    if (kernel.running === "training") return ask("stop");
    if (points().length < 4) return say("Draw at least two points first.");
    wantsPlay = true;
    ask("train");
  }, work);
  stage.choice({ label: "for", name: "seconds", place: work,
    options: [2, 5, 10, 30].map((s) => [s, `${s} seconds`]) });
  const asks = () => { wantsPlay = true; if (known.trained || model.get("oracle")) ask("walk"); };
  const walk = stage.choice({ label: "walk back by", name: "walk", options: model.get("walk_names"),
    place: work });
  stage.listen(walk, "change", asks);
  const anew = stage.button("New noise", () => { stage.set("noise", model.get("noise") + 1); asks(); },
    work);
  const oracle = stage.toggle({ label: "exact oracle", name: "oracle", place: work });
  stage.listen(oracle, "change", () => {
    if (model.get("oracle")) asks();
    else stage.redraw();
  });
  stage.toggle({ label: `paths of ${PATHS}`, name: "paths", place: work });
  const time = stage.row();
  stage.slider({ label: "timestep t", name: "t", min: 0, max: T, wide: true, place: time,
    says: String, reads: () => sentence() });
  const play = stage.play({ name: "t", range: () => [0, T], backwards: true, seconds: 6, place: time });
  const state = element("p", { class: "tx-line", role: "status" });
  stage.root.append(state);
  const say = (text) => { told = text; if (state.textContent !== text) state.textContent = text; };
  const line = stage.line(), box = stage.panels();
  const planes = { network: new Plane(stage, box, 0), oracle: new Plane(stage, box, 2) };
  planes.oracle.chart.describe("The plane of the exact oracle, not shown.");
  const loss = stage.chart({ width: 190, height: 286, place: box, x: [0, 500], y: [0, 1.1],
    xTicks: [0, 250, 500], xLabel: "training step", caption: "loss, and its floor (dashed)", margins: [6, 18, 34, 30] });
  const eps = normalNumbers(4242, 2 * count);
  const none = new Float32Array(0);
  const xs = { network: new Float32Array(2 * count), oracle: new Float32Array(2 * count) };

  function changed() {
    if (model.get("oracle")) { wantsPlay = false; ask("walk"); }
  }
  /** The words and the buttons that depend on the kernel. */
  function show() {
    train.textContent = kernel.running === "training" ? "Stop" : "Train";
    for (const control of [train, anew]) control.setAttribute("aria-disabled", kernel.silent);
    if (kernel.silent) {
      say(kernel.running ? "No word from the kernel: it is busy, or was restarted (then run this cell again)."
        : "No answer from the kernel: it is busy with another cell, or there is none (then run this " +
          "cell). You can draw; training and walking wait.");
    } else if (told.startsWith("No ")) say("The kernel is there again.");
    stage.redraw();
  }

  stage.hear((content, buffers) => {
    kernel.heard();
    hear[content.kind]?.(content, buffers);
    if (kernel.running) kernel.wait();  // it should go on talking
    show();
  });
  const about = ({ step, elapsed, seconds, floor }) => Object.assign(known, { step, elapsed, seconds,
    floor });
  const read = (data, Type) => new Type(data.buffer.slice(data.byteOffset,
    data.byteOffset + data.byteLength));
  function addLosses(data) {
    const pairs = read(data, Float32Array);
    for (let i = 0; i < pairs.length; i += 2) known.losses.push([pairs[i], pairs[i + 1]]);
    const end = known.losses.at(-1)?.[0] ?? 0;
    let wide = 500;
    while (wide < end) wide *= 2;
    if (wide !== loss.x[1]) { loss.x = [0, wide]; loss.xTicks = [0, wide / 2, wide]; loss.fresh(); }
  }
  const hear = {
    heard() {},
    state(content, [losses]) {
      kernel.running = !content.running ? "" : content.training ? "training" : "walking";
      known.losses = [];
      addLosses(losses);
      if (content.step !== undefined) { about(content); known.trained = !content.training; }
      say(kernel.running ? "Working." : known.trained ? `Trained for ${known.step} steps.`
        : "Draw on the left plane, or choose points; then press Train.");
    },
    started(content) {
      kernel.running = "training";
      Object.assign(known, { losses: [], look: null, trained: false });
      delete known.walks.network;
      loss.x = [0, 500];
      loss.xTicks = [0, 250, 500];
      loss.fresh();
      about(content);
      if (!calm()) stage.set("t", 0);
      say(`Training for ${short(content.seconds)} seconds. The dots show where its particles end now.`);
    },
    progress(content, [losses, look]) {
      about(content);
      addLosses(losses);
      if (look.byteLength) { known.look = read(look, Int16Array); known.lookAt = content.step; }
    },
    trained(content) {
      about(content);
      known.trained = true;
      kernel.running = "walking";
      say(`Trained for ${content.step} steps in ${short(content.elapsed)} seconds` +
        `${content.stopped ? " (stopped)" : ""}. The particles are on their way.`);
    },
    walking({ who }) {
      kernel.running = "walking";
      say(`The particles of the ${who} are on their way.`);
    },
    walk({ who, walk: name, steps }, [states, points]) {
      known.walks[who] = { steps, name, states: read(states, Int16Array),
        points: read(points, Int16Array) };
      known.look = null;
    },
    idle() {
      const worked = kernel.running;
      kernel.running = "";
      if (worked && !told.startsWith("It did not")) say(summary());
      if (wantsPlay && worked) {
        if (calm()) stage.set("t", 0);
        else if (play.textContent === "Play") { stage.set("t", T); play.click(); }
      }
      wantsPlay = false;
    },
    refused({ text }) { wantsPlay = false; say(`It did not work: ${text}.`); },  // the rest goes on
    failed({ text }) { kernel.running = ""; say(`It did not work: ${text}.`); },
  };
  function summary() {
    const done = known.trained ? `Trained for ${known.step} steps in ${short(known.elapsed)} seconds. `
      : "";
    return `${done}Play, or drag t: from noise (t = ${T}) back to data (t = 0).`;
  }

  const at = () => clamp(stage.get("t"), 0, T);
  const same = (a, b) => a.length === b.length && a.every((v, i) => v === b[i]);
  /** What a plane shows now: its particles, the data that they belong to, and a name for them. */
  function scene(who, data) {
    const t = at(), walked = known.walks[who];
    if (walked && !(who === "network" && known.look)) {
      between(xs[who], walked, t);
      return { xs: xs[who], walked, data: walked.points, name: `${who}, ${walked.name}`, t };
    }
    if (who === "network" && known.look) {
      const now = Float32Array.from(known.look, (v) => v / SCALE);
      return { xs: now, data, name: `network after ${known.lookAt} steps`, t: 0 };
    }
    if (who === "oracle") return { xs: none, data, name: "oracle: its walk comes from the kernel", t };
    if (!data.length) return { xs: none, data, name: "none yet: draw here", t };
    noisedPoints(xs[who], data, eps, bars[t]);
    return { xs: xs[who], data, name: "the data, noised to t", t };
  }
  function sentence() {
    return said;
  }
  let said = "", lastDrawn = null, scenes = {};
  stage.refreshers.unshift(() => {
    const data = points(), nothing = !data.length;
    scenes = { network: scene("network", data) };
    if (model.get("oracle")) scenes.oracle = scene("oracle", data);
    const parts = [`t = ${at()} of ${T}`];
    for (const [who, now] of Object.entries(scenes)) {
      now.near = shareNear(now.xs, now.data, NEAR);
      if (now.xs.length) parts.push(`${who === "oracle" ? "oracle" : known.walks.network || known.look
        ? "network" : "data, noised"}: ${percent(now.near)} near`);
    }
    said = nothing ? "no points yet" : parts.join("; ");
  });
  stage.paints(["t", "drawn", "shape", "oracle", "paths", "cursor_x", "cursor_y"], (anew) => {
    const drawn = model.get("drawn"), data = points();
    planes.oracle.figure.hidden = !model.get("oracle");
    const focused = cursor.includes(el.getRootNode().activeElement);
    for (const [who, now] of Object.entries(scenes)) {
      const plane = planes[who], { chart } = plane;
      if (drawn !== lastDrawn || !plane.data) { plane.data = data; chart.fresh(); }
      const heading = `✕ data, ● ${now.name}`;
      if (plane.heading.textContent !== heading) plane.heading.textContent = heading;
      chart.frame(anew, (c) => {
        if (now.walked && model.get("paths")) plane.lines(c, now.walked, now.t, now.xs);
        plane.dots(c, now.xs);
        if (focused && who === "network") plane.ring(c, model.get("cursor_x"), model.get("cursor_y"));
      });
      const stale = now.walked && !same(now.data, data)
        ? " The points have changed since." : "";
      chart.describe(`${data.length / 2} data points, drawn as crosses` +
        (now.xs.length ? `, and ${now.xs.length / 2} particles, drawn as dots (${now.name}), at ` +
          `t = ${now.t}; ${percent(now.near)} lie near the data, within ${NEAR}.` : ".") + stale);
    }
    lastDrawn = drawn;
    const { losses, floor } = known;
    loss.frame(anew, (c) => {
      if (floor != null) {
        loss.curve(c, loss.x, [floor, floor], 1, { width: 1.5 });
        loss.label(c, `floor ${floor.toFixed(2)}`, loss.x[1], floor, 1, { dy: 12 });
      }
      if (losses.length) {
        loss.curve(c, losses.map(([step]) => step), losses.map(([, value]) => value), 0);
      }
    });
    const recent = losses.slice(-10), mean = recent.reduce((a, [, v]) => a + v, 0) / recent.length;
    const learned = losses.length ? `step ${known.step}, loss ${mean.toFixed(2)}, floor ` +
      `${floor?.toFixed(2) ?? "not known"}` : "nothing trained yet";
    loss.describe(`Loss by training step: ${learned}.`);
    const walked = known.walks.network;
    const stale = walked && !same(walked.points, data) ? "; trained on other points: press Train" : "";
    line(`${said}; ${learned}${stale}`);
  });

  drawsOn(stage, planes.network, (x, y, size) => draw(around(x, y, size, BRUSH)), changed);

  show();
  ask("hello");
  return () => {
    kernel.end();
    stage.end();
  };
}

const widget = { render };
export { between, noisedPoints, packed, reached, shareNear };
export default widget;
