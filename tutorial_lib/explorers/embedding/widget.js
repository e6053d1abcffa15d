// Embedding explorer: a step as the tips of dim/2 hands that turn at different speeds.

/** How far hand i turns in a step, in radians: base^(-i / (dim/2)), float64. */
function speeds(dim, base) {
  const half = dim / 2;
  return Float64Array.from({ length: half }, (_, i) => Math.exp((-Math.log(base) * i) / half));
}

/** The embedding of step t into `out` from `from` on: all sines, then all cosines. */
function embed(out, from, t, hands) {
  for (let i = 0; i < hands.length; i++) {
    out[from + i] = Math.sin(t * hands[i]);
    out[from + hands.length + i] = Math.cos(t * hands[i]);
  }
}

/** The similarity of two steps by their distance 0..steps: the mean of cos(distance x speed). */
function similarity(steps, hands) {
  const found = new Float64Array(steps + 1);
  for (let d = 0; d <= steps; d++) {
    let sum = 0;
    for (const speed of hands) sum += Math.cos(d * speed);
    found[d] = sum / hands.length;
  }
  return found;
}

const AROUND = 50, ROWS = 256, DIALS = 8;

function render({ model, el }) {
  const stage = new Stage({ model, el }, "Embedding explorer");
  const T = model.get("num_steps");

  stage.slider({ label: "timestep t", name: "t", min: 0, max: T, wide: true,
    says: String, reads: () => sentence() });
  stage.play({ name: "t", range: () => [0, T], seconds: 12 });
  const row = stage.row();
  stage.slider({ label: "dim", name: "dim", min: 4, max: 128, step: 2, place: row, says: String,
    reads: (v) => `${v} entries, ${v / 2} hands` });
  stage.slider({ label: "base (max_period)", name: "max_period", min: 1, max: 5, step: 0.05,
    place: row, toValue: (x) => Math.round(10 ** x), toPlace: (v) => Math.log10(v),
    says: (v) => short(v, 5), reads: (v) => `base ${short(v, 5)}` });
  stage.toggle({ label: `only the ${2 * AROUND} steps around t`, name: "near", place: row });
  const say = stage.line();

  const box = stage.panels(), left = element("div"), right = element("div");
  box.append(left, right);
  const margins = [6, 10, 20, 42];
  const bars = stage.chart({ width: 396, height: 132, place: left, x: [0, 64], y: [-1, 1],
    yTicks: [-1, 0, 1], margins, caption: "the embedding of t: tips of the hands" });
  const map = stage.chart({ width: 396, height: 212, place: left, x: [0, 64], y: [0, T],
    xLabel: "entry (fast hands first in each half)", margins: [6, 10, 34, 42],
    caption: "the embedding of every step, a row each: −1 dark, +1 light" });
  const curve = stage.chart({ width: 396, height: 202, place: right, x: [0, T], y: [-1, 1],
    xLabel: "step s", caption: "similarity of step t to step s" });
  const dials = stage.chart({ width: 396, height: 118, place: right, x: [0, DIALS], y: [0, 1],
    xTicks: [], yTicks: [], margins: [0, 0, 0, 0],
    caption: "some hands: number above, steps of a turn below" });
  const picture = offscreen(1, 1);

  let hands, similar, seen, key = "", painted = "";
  const row_of = new Float32Array(128);
  const at = () => clamp(stage.get("t"), 0, T);
  /** The first and last step shown. */
  function span() {
    if (!stage.get("near") || 2 * AROUND >= T) return [0, T];
    const first = clamp(at() - AROUND, 0, T - 2 * AROUND);
    return [first, first + 2 * AROUND];
  }
  function sentence() {
    const t = at();
    const far = [1, 10, 100].filter((d) => d <= T && t + d <= T)
      .map((d) => `${similar[d].toFixed(3)} to t + ${d}`);
    return `t = ${t} of ${T}: similarity ${far.length ? far.join(", ") : `${similar[1].toFixed(3)} to t − 1`}`;
  }
  stage.refreshers.unshift(() => {  // before the slider asks for its sentence
    const dim = stage.get("dim"), base = stage.get("max_period"), wanted = `${dim} ${base}`;
    if (wanted === key) return;
    key = wanted;
    hands = speeds(dim, base);
    similar = similarity(T, hands);
    for (const chart of [bars, map]) {
      chart.x = [0, dim];
      chart.xTicks = [[0, "0"], [dim / 4, "sine"], [dim / 2, String(dim / 2)],
        [(3 * dim) / 4, "cosine"], [dim, String(dim)]];
      chart.fresh();
    }
    const least = similar.reduce((x, y) => Math.min(x, y));
    curve.y = [[0, -0.25, -0.5].find((low) => low <= least) ?? -1, 1];
    curve.fresh();
  });
  /** Draws the heat map of the steps first..last into the still picture of its chart. */
  function paintMap(first, last) {
    const dim = 2 * hands.length, rows = Math.min(last - first + 1, ROWS);
    picture.size(dim, rows);
    for (let r = 0; r < rows; r++) {
      embed(row_of, 0, Math.round(last - (r / (rows - 1)) * (last - first)), hands);
      for (let i = 0; i < dim; i++) ramp(picture.data, 4 * (r * dim + i), (row_of[i] + 1) / 2);
    }
    picture.put();
  }
  map.still = (context) => {
    const { left, top, right, bottom } = map.box;
    context.imageSmoothingEnabled = false;
    context.drawImage(picture.canvas, left, top, right - left, bottom - top);
    context.strokeStyle = stage.theme.paper;
    context.lineWidth = 2;
    map.segment(context, (left + right) / 2, top, (left + right) / 2, bottom);
  };
  stage.paints(["t", "dim", "max_period", "near"], (anew) => {
    const t = at(), [first, last] = span(), dim = 2 * hands.length;
    const wanted = `${key} ${first} ${last}`;
    if (wanted !== painted) {
      painted = wanted;
      paintMap(first, last);
      map.y = [first - 0.5, last + 0.5];
      map.yTicks = ticks(first, last, 4);
      curve.x = [first, last];
      map.fresh();
      curve.fresh();
      seen = Float64Array.from({ length: last - first + 1 }, (_, i) => first + i);
    }
    embed(row_of, 0, t, hands);
    bars.frame(anew, (c) => {
      const wide = bars.px(1) - bars.px(0), zero = bars.py(0);
      for (let i = 0; i < dim; i++) {
        c.fillStyle = stage.theme.curves[i < dim / 2 ? 0 : 1];
        const y = bars.py(row_of[i]);
        c.fillRect(bars.px(i) + 0.1 * wide, Math.min(y, zero), 0.8 * wide, Math.abs(y - zero));
      }
      c.strokeStyle = stage.theme.ink;
      c.lineWidth = 1;
      bars.segment(c, bars.px(0), zero, bars.px(dim), zero);
      bars.segment(c, bars.px(dim / 2), bars.box.top, bars.px(dim / 2), bars.box.bottom);
    });
    map.frame(anew, (c) => {
      const { left, right } = map.box, y = map.py(t);
      // a line in two colors is seen on every ground
      for (const [width, color] of [[4, stage.theme.paper], [1.6, stage.theme.ink]]) {
        c.strokeStyle = color;
        c.lineWidth = width;
        map.segment(c, left, y, right, y);
      }
    });
    curve.frame(anew, (c) => {
      curve.curve(c, seen, seen.map((s) => similar[Math.abs(s - t)]), 0);
      curve.marker(c, t);
      curve.dot(c, t, 1);
    });
    const shown = Math.min(DIALS, hands.length);
    const which = Array.from({ length: shown },
      (_, k) => Math.round((k / Math.max(1, shown - 1)) * (hands.length - 1)));
    dials.frame(anew, (c) => {
      const radius = 22;
      c.font = FONT;
      c.textAlign = "center";
      for (const [k, i] of which.entries()) {
        const x = dials.px(k + 0.5), y = 42;
        c.strokeStyle = stage.theme.ink;
        c.lineWidth = 1;
        c.beginPath();
        c.arc(x, y, radius, 0, 2 * Math.PI);
        c.stroke();
        // The tip is (sine, cosine): up at t = 0, and clockwise from there.
        const [sine, cosine] = [row_of[i], row_of[hands.length + i]];
        c.strokeStyle = stage.theme.curves[0];
        c.lineWidth = 2.5;
        dials.segment(c, x, y, x + (radius - 3) * sine, y - (radius - 3) * cosine);
        c.fillStyle = stage.theme.ink;
        c.textBaseline = "bottom";
        c.fillText(String(i), x, y - radius - 3);
        c.textBaseline = "top";
        c.fillText(short(Number(((2 * Math.PI) / hands[i]).toPrecision(2)), 5), x, y + radius + 4);
      }
    });
    const said = sentence(), range = `steps ${first} to ${last}`;
    say(said);
    bars.describe(`${dim} bars, ${dim / 2} sines and ${dim / 2} cosines, the embedding of t = ${t}.`);
    map.describe(`Heat map of the embeddings of ${range}, ${dim} entries each, the row of ` +
      `t = ${t} marked: entries of fast hands flicker from row to row, those of slow ones hardly change.`);
    curve.describe(`Similarity of t = ${t} to ${range}: 1 at t itself. ${said}`);
    dials.describe(`Clocks of the hands ${which.join(", ")} at t = ${t}; a turn takes ` +
      `${which.map((i) => short((2 * Math.PI) / hands[i], 2)).join(", ")} steps.`);
  });
  return () => stage.end();
}

const widget = { render };
export { embed, ramp, similarity, speeds };
export default widget;
