// Forward explorer: x_t = sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) eps for a batch, as one drags t.

/** x_t of every pixel, float32: x0 as bytes 0..255, eps as int16 of eps x 4096. */
function noisedBatch(out, x0, eps, alphaBar) {
  const signal = Math.sqrt(alphaBar) / 127.5, noise = Math.sqrt(1 - alphaBar) / 4096;
  const shift = Math.sqrt(alphaBar);
  for (let p = 0; p < out.length; p++) out[p] = signal * x0[p] - shift + noise * eps[p];
  return out;
}

/** Share of the values in each of `counts.length` equal bins of [low, high], per unit of width. */
function histogram(density, values, from, to, low, high) {
  density.fill(0);
  const bins = density.length, width = (high - low) / bins;
  for (let p = from; p < to; p++) {
    const bin = Math.floor((values[p] - low) / width);
    if (bin >= 0 && bin < bins) density[bin]++;
  }
  for (let bin = 0; bin < bins; bin++) density[bin] /= (to - from) * width;
  return density;
}

const LOW = -4, HIGH = 4, BINS = 64;

function render({ model, el }) {
  const stage = new Stage({ model, el }, "Forward explorer");
  const x0 = numbers(model, "x0", Uint8Array), given = numbers(model, "eps", Int16Array);
  const [count, ...shape] = model.get("shape"), [channels, h, w] = shape;
  const names = model.get("schedule_names"), bars = numbers(model, "alpha_bar", Float64Array);
  const T = bars.length / names.length - 1, size = channels * h * w;
  const x_t = new Float32Array(x0.length), density = new Float64Array(BINS);
  let eps = given, drawn = 0;

  stage.slider({ label: "timestep t", name: "t", min: 0, max: T, wide: true,
    says: String, reads: () => sentence() });
  stage.play({ name: "t", range: () => [0, T] });
  const row = stage.row();
  if (names.length > 1) {
    stage.choice({ label: "schedule", name: "schedule", options: names, place: row });
  }
  const everyone = Array.from({ length: count }, (_, i) => [i, `image ${i + 1}`]);
  if (count > 1) {
    stage.choice({ label: "show", name: "image", place: row,
      options: [[-1, `all ${count} images`], ...everyone] });
  }
  stage.button("New noise", () => stage.set("noise", stage.get("noise") + 1), row);
  const say = stage.line(), box = stage.panels();

  const gap = 2, columns = Math.min(count, Math.ceil(Math.sqrt(count * 1.6)));
  const rows = Math.ceil(count / columns);
  const wide = columns * (w + gap) - gap, high = rows * (h + gap) - gap;
  const grid = stage.pixels({ width: wide, height: high, place: box, caption: "x_t",
    scale: Math.max(1, Math.min(8, Math.floor(Math.min(366 / wide, 400 / high)))) });
  const chart = stage.chart({ width: 250, height: 210, place: box, x: [LOW, HIGH], y: [0, 1],
    xLabel: "value of a pixel", caption: "pixels of x_t (filled) and N(0, 1) (dashed)",
    margins: [10, 14, 34, 34] });
  const rates = stage.chart({ width: 180, height: 210, place: box, x: [0, 2], y: [0, 1.12],
    yTicks: [0, 0.5, 1], xTicks: [[0.5, "signal"], [1.5, "noise"]],
    margins: [10, 8, 34, 34], caption: "the weights √ᾱ and √(1−ᾱ)" });
  const centers = Float64Array.from({ length: 161 }, (_, i) => LOW + (i / 160) * (HIGH - LOW));
  const normal = centers.map((v) => Math.exp((-v * v) / 2) / Math.sqrt(2 * Math.PI));

  const at = () => clamp(stage.get("t"), 0, T);
  const bar = () => bars[Math.max(0, names.indexOf(stage.get("schedule"))) * (T + 1) + at()];
  function sentence() {
    const a = bar(), snr = a < 1 ? short(a / (1 - a)) : "∞";
    return `t = ${at()} of ${T}: signal ${Math.sqrt(a).toFixed(3)}, ` +
      `noise ${Math.sqrt(1 - a).toFixed(3)}, SNR ${snr}`;
  }
  stage.paints(["t", "schedule", "image", "noise"], (anew) => {
    const wanted = stage.get("noise");
    if (wanted !== drawn) {
      drawn = wanted;
      eps = wanted ? Int16Array.from(normalNumbers(wanted, x0.length),
        (e) => clamp(Math.round(e * 4096), -32768, 32767)) : given;
    }
    const a = bar(), one = stage.get("image");
    noisedBatch(x_t, x0, eps, a);
    const shown = one < 0 ? [0, count] : [one, one + 1];
    grid.data.fill(0);
    for (let i = shown[0]; i < shown[1]; i++) {
      const left = (i % columns) * (w + gap), top = Math.floor(i / columns) * (h + gap);
      paintImage(grid.data, grid.width, left, top, shape, i, (p) => x_t[p]);
    }
    grid.put();
    histogram(density, x_t, shown[0] * size, shown[1] * size, LOW, HIGH);
    const peak = Math.max(0.45, Math.min(2, density.reduce((x, y) => Math.max(x, y)) * 1.05));
    const top = [0.45, 0.6, 0.8, 1, 1.5, 2].find((v) => v >= peak) ?? 2;
    if (chart.y[1] !== top) { chart.y = [0, top]; chart.fresh(); }
    chart.frame(anew, (c) => {
      c.fillStyle = stage.theme.curves[0];
      c.globalAlpha = 0.45;
      const width = chart.px(HIGH) - chart.px(LOW);
      for (let b = 0; b < BINS; b++) {
        const height = chart.py(0) - chart.py(Math.min(density[b], top));
        c.fillRect(chart.px(LOW) + (b * width) / BINS, chart.py(0) - height, width / BINS + 0.5, height);
      }
      c.globalAlpha = 1;
      chart.curve(c, centers, normal, 1);
    });
    rates.frame(anew, (c) => {
      for (const [i, rate] of [Math.sqrt(a), Math.sqrt(1 - a)].entries()) {
        c.fillStyle = stage.theme.curves[i];
        const left = rates.px(i + 0.2), right = rates.px(i + 0.8);
        c.fillRect(left, rates.py(rate), right - left, rates.py(0) - rates.py(rate));
        c.fillStyle = stage.theme.ink;
        c.font = FONT;
        c.textAlign = "center";
        c.textBaseline = "bottom";
        c.fillText(rate.toFixed(3), (left + right) / 2, rates.py(rate) - 2);
      }
    });
    const said = sentence();
    say(said);
    const who = one < 0 ? `${count} images` : `Image ${one + 1}`;
    grid.describe(`${who} noised. ${said}`);
    rates.describe(`Two bars. ${said}`);
    const { mean, deviation } = moments(x_t, shown[0] * size, shown[1] * size);
    chart.describe(`Histogram of the pixels beside the bell curve of N(0, 1): mean ` +
      `${mean.toFixed(2)}, standard deviation ${deviation.toFixed(2)}.`);
  });
  return () => stage.end();
}

function moments(values, from, to) {
  let sum = 0, squares = 0;
  for (let p = from; p < to; p++) { sum += values[p]; squares += values[p] ** 2; }
  const mean = sum / (to - from);
  return { mean, deviation: Math.sqrt(Math.max(0, squares / (to - from) - mean * mean)) };
}

const widget = { render };
export { histogram, moments, noisedBatch, normalNumbers, paintImage };
export default widget;
