// Denoiser explorer: what a model said about noised data at the steps where it was asked.

const EPS_SENT = 4; // a byte of eps_hat stands for -4 to 4
const EPS_SHOWN = 3; // noise is drawn from black at -3 to white at 3
const LONGEST = 1.25; // of an arrow, in distances between arrows
const LINES = 100; // from the true noise to the guess, at most
const PATIENCE = 1000; // ms until it is said that the kernel does not answer

/** eps_hat from its byte. */
const epsFromByte = (byte) => (byte / 127.5 - 1) * EPS_SENT;

/** What picture `which` shows at value `p`, from -1 (black) to 1 (white); see `pictures`. */
function pictureValue(which, data, from, p) {
  const eps = data.eps[p] / 4096;
  switch (which) {
    case "x_t": return data.signal * (data.x0[p] / 127.5 - 1) + data.noise * eps;
    case "eps": return eps / EPS_SHOWN;
    case "eps_hat": return epsFromByte(data.eps_hat[from + p]) / EPS_SHOWN;
    case "error": return (epsFromByte(data.eps_hat[from + p]) - eps) / EPS_SHOWN;
    default: return data.x0_hat[from + p] / 127.5 - 1;
  }
}

/** Points in the plane at one step: x_t and x0_hat, each [x, y, x, y, ...]. */
function pointsAt(x0, eps, epsHat, from, signal, noise) {
  const x_t = new Float32Array(x0.length), x0_hat = new Float32Array(x0.length);
  for (let p = 0; p < x0.length; p++) {
    x_t[p] = signal * x0[p] + (noise * eps[p]) / 4096;
    x0_hat[p] = (x_t[p] - (noise * epsHat[from + p]) / 4096) / signal;
  }
  return { x_t, x0_hat };
}

/** The middles of the squares where arrows stand, [x, y, x, y, ...], row by row from below. */
function gridOfPoints(reach, count) {
  const found = new Float64Array(2 * count * count);
  const middle = (i) => (((i + 0.5) / count) * 2 - 1) * reach;
  for (let p = 0; p < count * count; p++) {
    found[2 * p] = middle(p % count);
    found[2 * p + 1] = middle(Math.floor(p / count));
  }
  return found;
}

/** Low and high end of a logarithmic axis for numbers above 0, as powers of ten; at most 6 apart. */
function decades(...curves) {
  const all = curves.flatMap((curve) => [...curve]).filter((v) => v > 0);
  const high = Math.min(4, Math.ceil(Math.log10(Math.max(1, ...all)) - 1e-9));
  const low = Math.min(-1, Math.floor(Math.log10(Math.min(1, ...all)) + 1e-9));
  return [Math.max(high - 6, low), high];
}

function render({ model, el }) {
  const stage = new Stage({ model, el }, "Denoiser explorer");
  const [count, ...shape] = model.get("shape"), images = shape.length === 3;
  const steps = model.get("timesteps"), T = model.get("num_steps"), last = steps.length - 1;
  const bars = numbers(model, "alpha_bar", Float64Array);
  const size = shape.reduce((x, y) => x * y, 1), all = count * size;
  const x0 = images ? numbers(model, "x0", Uint8Array) : numbers(model, "x0", Float32Array);
  const data = { x0 };
  let drawn = -1;

  stage.slider({ label: "timestep t", name: "place", min: 0, max: last, wide: true,
    says: () => String(steps[at()]), reads: () => sentence() });
  stage.play({ name: "place", range: () => [0, last] });
  const row = stage.row();
  if (images && count > 1) {
    const everyone = Array.from({ length: count }, (_, i) => [i, `image ${i + 1}`]);
    stage.choice({ label: "show", name: "chosen", options: everyone, place: row });
  } else if (count > 1) {
    stage.slider({ label: "point", name: "chosen", min: 0, max: count - 1, place: row,
      says: (i) => String(i + 1), reads: () => ofThePoint() });
  }
  const compared = model.get("floors").byteLength > 0;
  if (!images && compared) {
    stage.choice({ label: "arrows", name: "arrows", place: row, options: [["both",
      "model over oracle"], ["model", "model"], ["oracle", "oracle"],
    ["error", "model − oracle"]] });
  }
  if (model.widget_manager) noiseButton(stage, row); // a page of its own has no kernel to ask
  const say = stage.line();

  const at = () => clamp(stage.get("place"), 0, last);
  const one = () => clamp(stage.get("chosen"), 0, count - 1);
  const rates = () => [Math.sqrt(bars[at()]), Math.sqrt(1 - bars[at()])];
  function sentence() {
    if (!data.losses) return "";
    const [signal, noise] = rates(), k = at();
    const mine = data.each ? `loss of this image ${short(data.each[k * count + one()])}, ` : "";
    const floor = compared ? `, oracle ${short(data.floors[k])}` : "";
    const mean = images && count === 1 ? "" : `, ${mine}mean loss ${short(data.losses[k])}`;
    return `t = ${steps[k]} of ${T}: signal ${signal.toFixed(3)}, noise ${noise.toFixed(3)}` +
      `${mean || `, loss ${short(data.losses[k])}`}${floor}`;
  }
  function ofThePoint() {
    if (!data.losses) return "";
    const p = 2 * one(), from = at() * all;
    const pair = (v, i) => `(${(v[i] / 4096).toFixed(2)}, ${(v[i + 1] / 4096).toFixed(2)})`;
    return `point ${one() + 1}: ε ${pair(data.eps, p)}, ε̂ ${pair(data.eps_hat, from + p)}`;
  }
  const kit = { stage, model, data, steps, at, one, rates, count, shape, all, compared, ofThePoint };
  const paintData = images ? imagesOf(kit) : pointsOf(kit);

  stage.refreshers.unshift(() => {
    if (stage.get("noise") === drawn) return;
    drawn = stage.get("noise");
    data.eps = numbers(model, "eps", Int16Array);
    data.eps_hat = numbers(model, "eps_hat", images ? Uint8Array : Int16Array);
    if (images) {
      data.x0_hat = numbers(model, "x0_hat", Uint8Array);
      data.each = numbers(model, "each", Float32Array);
    }
    data.losses = numbers(model, "losses", Float32Array);
    data.floors = numbers(model, "floors", Float32Array);
    data.fresh = true;
  });
  stage.paints(["place", "chosen", "arrows", "noise"], (anew) => {
    const said = sentence();
    say(images ? said : `${said}; ${ofThePoint()}`);
    paintData(anew, said);
    data.fresh = false;
  });
  return () => stage.end();
}

/** The loss at every step that was asked for, with a marker at t; logarithmic for images. */
function lossChart({ stage, data, steps, at, compared, shape }, size) {
  const last = steps.length - 1, places = Float64Array.from(steps, (_, k) => k);
  const marks = [0, 0.2, 0.4, 0.6, 0.8, 1].map((share) => Math.round(share * last));
  const powers = shape.length === 3; // the loss of images spans decades
  const chart = stage.chart({ ...size, x: [0, last], y: [0, 1], xLabel: "t",
    xTicks: [...new Set(marks)].map((k) => [k, String(steps[k])]), margins: [8, 14, 34, 46],
    caption: "loss: mean of (ε̂ − ε)², 1 for a model that always says 0" });
  const height = (values) => Float64Array.from(values, (v) => (powers ? Math.log10(v || 1e-12) : v));
  const scale = () => {
    if (!powers) {
      const top = Math.max(...data.losses, ...data.floors) * 1.05;
      chart.y = [0, [1.2, 1.6, 2].find((v) => v >= top) ?? 2];
      chart.yTicks = chart.y[1] < 2 ? [0, 0.5, 1, 1.5].filter((v) => v < chart.y[1]) : [0, 1, 2];
      return;
    }
    chart.y = decades(data.losses, data.floors);
    chart.yTicks = Array.from({ length: chart.y[1] - chart.y[0] + 1 }, (_, i) => chart.y[0] + i)
      .map((e) => [e, Math.abs(e) > 3 ? `1e${e}` : String(+(10 ** e).toFixed(3))]);
  };
  let losses, floors;
  return (anew, said) => {
    if (data.fresh || !losses) {
      scale();
      losses = height(data.losses);
      floors = height(data.floors);
      chart.still = (context) => {
        if (compared) chart.curve(context, places, floors, 1);
        chart.curve(context, places, losses, 0);
        const k = Math.round(0.15 * last), j = Math.round(0.2 * last);
        chart.label(context, "model", k, losses[k], 0, { dx: 0, dy: -13 });
        if (compared) chart.label(context, "oracle (dashed)", j, floors[j], 1, { dx: -80, dy: 17 });
      };
      chart.fresh();
    }
    chart.frame(anew, (context) => {
      chart.marker(context, at());
      if (compared) chart.dot(context, at(), floors[at()], 1, 3.5);
      chart.dot(context, at(), losses[at()], 0);
    });
    const axis = powers ? " on a logarithmic axis" : "";
    chart.describe(`Loss over t${axis}${compared ? ", of model and oracle" : ""}. ${said}`);
  };
}

const PICTURES = [
  ["x_t", "x_t: what the model sees"],
  ["eps", "ε: the noise in it"],
  ["eps_hat", "ε̂: what the model says"],
  ["error", "ε̂ − ε: its error"],
  ["x0_hat", "x̂₀: the image it means"],
];

function imagesOf(kit) {
  const { stage, data, shape, count, all, at, one, rates } = kit, [, h, w] = shape;
  const box = stage.panels(), scale = Math.max(1, Math.floor(147 / Math.max(w, h)));
  const pictures = PICTURES.map(([which, caption]) => [which, caption,
    stage.pixels({ width: w, height: h, scale, place: box, caption })]);
  const losses = lossChart(kit, { width: 780, height: 190, place: stage.panels() });
  return (anew, said) => {
    [data.signal, data.noise] = rates();
    for (const [which, caption, picture] of pictures) {
      paintImage(picture.data, w, 0, 0, shape, one(),
        (p) => pictureValue(which, data, at() * all, p));
      picture.put();
      const wrong = which === "error" ? `, root mean square ${Math.sqrt(
        data.each[at() * count + one()]).toFixed(2)}` : "";
      picture.describe(`Image ${one() + 1}, ${caption}${wrong}. ${said}`);
    }
    losses(anew, said);
  };
}

function pointsOf(kit) {
  const { stage, model, data, all, count, at, one, rates, compared } = kit;
  const reach = model.get("reach"), square = { x: [-reach, reach], y: [-reach, reach] };
  const arrows = { model: numbers(model, "model_field", Int16Array),
    oracle: numbers(model, "oracle_field", Int16Array) };
  const each = arrows.model.length / kit.steps.length, across = Math.sqrt(each / 2);
  const grid = gridOfPoints(reach, across);
  const box = stage.panels();
  const ground = stage.chart({ width: 340, height: 340, ...square, place: box,
    margins: [4, 4, 20, 28], caption: "arrows: ε̂ at each place; dots: the points x_t" });
  const side = element("div", { class: "tx-side" }), pair = element("div", { class: "tx-panels" });
  box.append(side);
  side.append(pair);
  const small = { width: 213, height: 213, place: pair, margins: [4, 4, 20, 28] };
  const noises = stage.chart({ ...small, x: [-3.6, 3.6], y: [-3.6, 3.6],
    caption: `○ true ε, ■ ε̂; lines: ${count > LINES ? "some errors" : "the errors"}` });
  const clean = stage.chart({ ...small, ...square, caption: "○ true x₀, ■ x̂₀" });
  const losses = lossChart(kit, { width: 444, height: 130, place: side });
  const floats = { eps: new Float32Array(all), eps_hat: new Float32Array(all) };

  return (anew, said) => {
    const from = at() * all, [signal, noise] = rates(), { theme } = stage;
    const { x_t, x0_hat } = pointsAt(data.x0, data.eps, data.eps_hat, from, signal, noise);
    for (let p = 0; p < all; p++) {
      floats.eps[p] = data.eps[p] / 4096;
      floats.eps_hat[p] = data.eps_hat[from + p] / 4096;
    }
    const shown = compared ? stage.get("arrows") : "model";
    ground.frame(anew, (c) => {
      inside(ground, c, () => {
        c.globalAlpha = 0.4;
        squares(ground, c, x_t, theme.ink, 3);
        c.globalAlpha = 1;
        const fields = shown === "both" ? ["oracle", "model"] : [shown];
        for (const which of fields) {
          const wide = which === "oracle";
          drawArrows(ground, c, grid, across, theme.curves[which === "model" ? 0 : wide ? 1 : 3],
            wide && shown === "both" ? 4 : 1.5, !(wide && shown === "both"),
            (p) => fieldValue(arrows, which, at() * each, p));
        }
        ring(ground, c, x_t, one(), theme);
      });
    });
    for (const [chart, truth, guess, lines] of
      [[noises, floats.eps, floats.eps_hat, true], [clean, data.x0, x0_hat, false]]) {
      chart.still = (c) => inside(chart, c, () => { // the truth is the same at every t
        circles(chart, c, truth, stage.theme.curves[1], count > 400 ? 1.5 : 2);
      });
      if (data.fresh) chart.fresh();
      chart.frame(anew, (c) => inside(chart, c, () => {
        if (lines) links(chart, c, truth, guess, theme);
        squares(chart, c, guess, theme.curves[0], count > 400 ? 2 : 3);
        ring(chart, c, truth, one(), theme);
        ring(chart, c, guess, one(), theme, truth);
      }));
    }
    const point = kit.ofThePoint(), names = { both: "model, over the oracle's", model: "model",
      oracle: "oracle", error: "model minus those of the oracle" };
    ground.describe(`Arrows of eps-hat on a grid, those of the ${names[shown]}, and ${count} ` +
      `points x_t. ${said}`);
    noises.describe(`The true noise of each point and the model's guess. ${point}; ${said}`);
    const [x, y] = [x0_hat[2 * one()], x0_hat[2 * one() + 1]].map((v) => v.toFixed(2));
    clean.describe(`The true x_0 of each point and the guess x0-hat: of point ${one() + 1} ` +
      `(${x}, ${y}). ${said}`);
    losses(anew, said);
  };
}

/** An entry of the field `which` (model, oracle, or error: their difference). */
function fieldValue(arrows, which, from, p) {
  if (which === "error") return (arrows.model[from + p] - arrows.oracle[from + p]) / 4096;
  return arrows[which][from + p] / 4096;
}

/** Paints with everything clipped to the axes of `chart`. */
function inside(chart, context, paint) {
  const { left, top, right, bottom } = chart.box;
  context.save();
  context.beginPath();
  context.rect(left, top, right - left, bottom - top);
  context.clip();
  paint();
  context.restore();
}

/** Arrows from the places of the grid: noise of length 2 spans the distance between two. */
function drawArrows(chart, context, grid, across, color, width, heads, value) {
  const unit = (chart.box.right - chart.box.left) / across / 2;
  context.strokeStyle = color;
  context.lineWidth = width;
  context.beginPath();
  for (let p = 0; p < grid.length; p += 2) {
    let dx = value(p) * unit, dy = -value(p + 1) * unit;
    const length = Math.hypot(dx, dy), most = 2 * unit * LONGEST;
    if (length > most) { dx *= most / length; dy *= most / length; }
    const x = chart.px(grid[p]), y = chart.py(grid[p + 1]);
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

function squares(chart, context, points, color, side) {
  context.fillStyle = color;
  for (let p = 0; p < points.length; p += 2) {
    context.fillRect(chart.px(points[p]) - side / 2, chart.py(points[p + 1]) - side / 2, side, side);
  }
}

function circles(chart, context, points, color, radius) {
  context.strokeStyle = color;
  context.lineWidth = 1;
  context.beginPath();
  for (let p = 0; p < points.length; p += 2) {
    const x = chart.px(points[p]), y = chart.py(points[p + 1]);
    context.moveTo(x + radius, y);
    context.arc(x, y, radius, 0, 2 * Math.PI);
  }
  context.stroke();
}

function links(chart, context, from, to, theme) {
  context.strokeStyle = theme.ink;
  context.globalAlpha = 0.18;
  context.lineWidth = 1;
  const stride = 2 * Math.ceil(from.length / 2 / LINES); // more would hide what they show
  for (let p = 0; p < from.length; p += stride) { // one by one: a path of all takes longer
    context.beginPath();
    context.moveTo(chart.px(from[p]), chart.py(from[p + 1]));
    context.lineTo(chart.px(to[p]), chart.py(to[p + 1]));
    context.stroke();
  }
  context.globalAlpha = 1;
}

/** A ring around the chosen point, and a line to it from its place in `from`. */
function ring(chart, context, points, chosen, theme, from = null) {
  const x = chart.px(points[2 * chosen]), y = chart.py(points[2 * chosen + 1]);
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

/** The button for which the kernel draws noise and asks the model; it says when it cannot. */
function noiseButton(stage, place) {
  let waits = "";
  const button = stage.button("New noise", () => { if (!waits) ask("noise"); }, place);
  const note = element("span", { class: "tx-note", role: "status" });
  place.append(note);
  const timers = [];
  function ask(kind) {
    waits = kind;
    // Not `disabled`: that would take the focus away from whoever has just pressed it.
    button.setAttribute("aria-disabled", "true");
    timers.push(setTimeout(() => {
      note.textContent = kind === "noise" ? "waiting for the kernel, which is busy or gone"
        : "needs a kernel that is idle: if it stays so, run this cell";
    }, kind === "noise" ? PATIENCE : 2 * PATIENCE));
    try {
      stage.model.send({ kind });
    } catch (error) {
      answered(`no kernel: ${error.message}`);
      button.disabled = true;
    }
  }
  function answered(text) {
    for (const timer of timers.splice(0)) clearTimeout(timer);
    note.textContent = text;
    button.setAttribute("aria-disabled", "false");
    waits = "";
  }
  stage.hear(({ kind, why }) => {
    if (kind === "ready") answered("");
    else if (kind === "failed") answered(why);
  });
  stage.endings.push(() => answered(""));
  ask("hello");
}

const widget = { render };
export { decades, epsFromByte, gridOfPoints, pictureValue, pointsAt };
export default widget;
