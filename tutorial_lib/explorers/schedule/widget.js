// Schedule explorer: alpha_bar is computed here, so T and the ends can be dragged.

// Below it x_0 predicted back overflows float32: the library refuses such a schedule.
const SMALLEST = 1e-60;

/** beta for t = 1..T at index t, NaN at 0: Ho et al. 2020 (linear, quadratic), Nichol and Dhariwal 2021. */
function betasOf(family, steps, start, end, offset = 0.008, maxBeta = 0.999) {
  const angle = (t) => Math.cos(((t / steps + offset) / (1 + offset)) * (Math.PI / 2)) ** 2;
  const betas = new Float64Array(steps + 1).fill(NaN);
  for (let t = 1; t <= steps; t++) {
    const share = steps > 1 ? (t - 1) / (steps - 1) : 0;
    if (family === "linear") betas[t] = start + share * (end - start);
    else if (family === "quadratic") {
      betas[t] = (Math.sqrt(start) + share * (Math.sqrt(end) - Math.sqrt(start))) ** 2;
    } else betas[t] = Math.min(maxBeta, 1 - angle(t) / angle(t - 1));
  }
  return betas;
}

/** alpha_bar for t = 0..T, float64, at least `SMALLEST`. */
function alphaBar(...schedule) {
  const betas = betasOf(...schedule), found = new Float64Array(betas.length).fill(1);
  for (let t = 1; t < found.length; t++) {
    found[t] = Math.max(SMALLEST, found[t - 1] * (1 - betas[t]));
  }
  return found;
}

/** The first t at which there is more noise than signal; T + 1 where that never comes. */
function crossing(alphaBars) {
  const t = alphaBars.findIndex((value) => value < 0.5);
  return t < 0 ? alphaBars.length : t;
}

/** One image noised, RGBA: sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) eps. */
function noised(data, width, left, top, shape, x0, eps, alphaBar) {
  const signal = Math.sqrt(alphaBar), noise = Math.sqrt(1 - alphaBar) / 4096;
  paintImage(data, width, left, top, shape, 0, (p) => signal * (x0[p] / 127.5 - 1) + noise * eps[p]);
}

const STRIP = 9;

function render({ model, el }) {
  const stage = new Stage({ model, el }, "Schedule explorer");
  const x0 = numbers(model, "x0", Uint8Array), eps = numbers(model, "eps", Int16Array);
  const own = numbers(model, "own", Float64Array), names = model.get("own_names");
  const shape = model.get("shape"), ownSteps = names.length ? own.length / names.length - 1 : 0;
  const families = ["linear", "quadratic", "cosine"];

  stage.choice({ label: "schedule", name: "family", options: [...families, ...names] });
  const length = stage.slider({ label: "T", name: "num_steps", min: 10, max: 2000, step: 10,
    says: String, reads: (v) => `${v} noise steps` });
  const logarithmic = { min: -5, max: -0.3, step: 0.02,
    toValue: (x) => 10 ** x, toPlace: (v) => Math.log10(v), says: (v) => short(v, 2) };
  const betaRow = stage.row(), row = stage.row();
  const ends = [
    stage.slider({ label: "first β", name: "beta_start", place: betaRow, ...logarithmic }),
    stage.slider({ label: "last β", name: "beta_end", place: betaRow, ...logarithmic }),
  ];
  const slider = stage.slider({ label: "timestep t", name: "t", min: 0, max: 1000, wide: true,
    place: row, says: String, reads: () => sentence() });
  stage.play({ name: "t", range: () => [0, last()], place: row });
  const say = stage.line();

  const box = stage.panels(), size = { width: 264, height: 190, place: box };
  const time = { x: [0, 1000], xLabel: "t" };
  const charts = {
    beta: stage.chart({ ...size, ...time, y: [0, 0.02], caption: "β: noise added at each step" }),
    rest: stage.chart({ ...size, ...time, y: [0, 1], caption: "ᾱ: share of the signal's variance left" }),
    snr: stage.chart({ ...size, ...time, y: [-60, 60], caption: "SNR = ᾱ / (1 − ᾱ), in dB" }),
  };
  const [, h, w] = shape, gap = 2;
  const pictures = stage.panels();
  const now = stage.pixels({ width: w, height: h, scale: Math.max(1, Math.round(168 / h)),
    place: pictures, caption: "the image at t" });
  const scale = Math.max(1, Math.min(3, Math.floor(680 / (STRIP * (w + gap)))));
  const strip = stage.pixels({ width: STRIP * (w + gap) - gap, height: h, scale, place: pictures,
    caption: "from t = 0 to T in equal steps" });

  let bars, betas, decibels, steps, key = "";
  const last = () => steps ?? 1;
  function compute() {
    const family = stage.get("family"), at = names.indexOf(family);
    steps = at < 0 ? stage.get("num_steps") : ownSteps;
    const asked = [family, steps, stage.get("beta_start"), stage.get("beta_end")];
    bars = at < 0 ? alphaBar(...asked) : own.subarray(at * (steps + 1), (at + 1) * (steps + 1));
    betas = at < 0 ? betasOf(...asked) : bars.map((bar, t) => (t ? 1 - bar / bars[t - 1] : NaN));
    decibels = bars.map((bar) => 10 * Math.log10(bar / (1 - bar)));
    length.disabled = at >= 0;
    for (const end of ends) end.disabled = at >= 0 || family === "cosine";
    slider.max = steps;
    const ts = Float64Array.from(bars, (_, t) => t);
    const top = betas.reduce((most, beta) => (beta > most ? beta : most), 0) * 1.05;
    charts.beta.y = [0, top];
    const cross = crossing(bars);
    for (const [chart, ys] of [[charts.beta, betas], [charts.rest, bars], [charts.snr, decibels]]) {
      chart.x = [0, steps];
      chart.still = (context) => {
        chart.curve(context, ts, ys, 0);
        if (chart !== charts.snr || cross > steps) return;
        context.strokeStyle = stage.theme.curves[1];
        context.setLineDash(DASHES[1]);
        chart.segment(context, chart.px(0), chart.py(0), chart.px(cross), chart.py(0));
        chart.segment(context, chart.px(cross), chart.py(0), chart.px(cross), chart.py(-60));
        context.setLineDash([]);
        chart.label(context, `SNR = 1 at t = ${cross}`, cross, 0, 1, { dx: 6, dy: -12 });
      };
      chart.fresh();
    }
    for (let i = 0; i < STRIP; i++) {
      const at = Math.round((i / (STRIP - 1)) * steps);
      noised(strip.data, strip.width, i * (w + gap), 0, shape, x0, eps, bars[at]);
    }
    strip.put();
    strip.describe(`One image at ${STRIP} steps from t = 0 to ${steps}, fading into noise: ` +
      `signal and noise are equal ${cross > steps ? "nowhere" : `at t = ${cross}`}.`);
  }
  const at = () => clamp(stage.get("t"), 0, steps ?? 0);
  function sentence() {
    if (!bars) return "";
    const t = at(), bar = bars[t];
    const beta = t ? `β ${short(betas[t])}, ` : "";
    return `t = ${t} of ${steps}: ${beta}ᾱ ${short(bar)}, signal ${Math.sqrt(bar).toFixed(3)}, ` +
      `noise ${Math.sqrt(1 - bar).toFixed(3)}, SNR ${t ? short(bar / (1 - bar)) : "∞"}` +
      (bar > SMALLEST ? "" : ". Nothing is left: the library refuses such a schedule");
  }
  const inputs = ["family", "num_steps", "beta_start", "beta_end"];
  stage.refreshers.unshift(() => {  // before the slider asks for its sentence
    const wanted = inputs.map((name) => stage.get(name)).join();
    if (wanted !== key) { key = wanted; compute(); }
    if (stage.get("t") > steps) stage.set("t", steps);
  });
  stage.paints([...inputs, "t"], (anew) => {
    const t = at();
    charts.beta.frame(anew, (c) => {
      charts.beta.marker(c, t);
      if (t) charts.beta.dot(c, t, betas[t]);
    });
    charts.rest.frame(anew, (c) => { charts.rest.marker(c, t); charts.rest.dot(c, t, bars[t]); });
    charts.snr.frame(anew, (c) => {
      charts.snr.marker(c, t);
      charts.snr.dot(c, t, clamp(decibels[t], -60, 60));
    });
    noised(now.data, w, 0, 0, shape, x0, eps, bars[t]);
    now.put();
    const said = sentence();
    say(said);
    now.describe(`The image at ${said}`);
    charts.beta.describe(`beta over t, rising to ${short(charts.beta.y[1] / 1.05)}. ${said}`);
    charts.rest.describe(`alpha-bar over t, falling from 1 to ${short(bars[steps])}. ${said}`);
    charts.snr.describe(`SNR over t in decibels. ${said}`);
  });
  return () => stage.end();
}

const widget = { render };
export { alphaBar, betasOf, crossing, noised };
export default widget;
