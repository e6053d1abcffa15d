// Trajectory explorer: two walks from one x_T, looked at while t falls from T to 0.

/** The number of the last halt at `t` or before it, as a walk comes down from T. */
function reached(halts, t) {
  let i = 0;
  while (i + 1 < halts.length && halts[i + 1] >= t) i++;
  return i;
}

/** How many of `steps` equal strides from T a walk has taken when it halts at `halt`. */
function stepsTaken(halt, T, steps) {
  return Math.round(((T - halt) * steps) / T);
}

/** Root mean square difference of two pictures in bytes, where white is 1 and black -1. */
function apart(one, other) {
  let sum = 0;
  for (let p = 0; p < one.length; p++) sum += (one[p] - other[p]) ** 2;
  return Math.sqrt(sum / one.length) / 127.5;
}

function render({ model, el }) {
  const stage = new Stage({ model, el }, "Trajectory explorer");
  const [count, ...shape] = model.get("shape"), [channels, h, w] = shape;
  const T = model.get("num_steps"), size = count * channels * h * w;
  const x_t = numbers(model, "x_t", Uint8Array), x0_hat = numbers(model, "x0_hat", Uint8Array);
  const settled = numbers(model, "settled", Float32Array);
  let first = 0;
  const walks = model.get("walks").map((walk) => {
    const found = { ...walk, first, settled: settled.subarray(first, first + walk.t.length) };
    first += walk.t.length;
    return found;
  });

  stage.slider({ label: "timestep t", name: "t", min: 0, max: T, wide: true,
    toValue: (x) => T - x, toPlace: (t) => T - t, says: String, reads: () => sentence() });
  stage.play({ name: "t", range: () => [0, T], backwards: true });
  const row = stage.row();
  stage.choice({ label: "DDIM steps", name: "steps", options: model.get("all_steps"), place: row });
  stage.choice({ label: "DDIM η", name: "eta", options: model.get("all_etas"), place: row });
  const say = stage.line();

  const box = stage.panels(), left = element("div");
  box.append(left);
  const gap = 2, wide = count * (w + gap) - gap, room = count > 2 ? 420 : 236;
  const scale = Math.max(1, Math.min(8, Math.floor(Math.min(room / wide, 168 / h))));
  const views = ["DDPM", "DDIM"].map((name) => {
    const place = element("div", { class: "tx-panels" });
    left.append(place);
    return {
      name,
      states: stage.pixels({ width: wide, height: h, scale, place, caption: `${name}: x_t` }),
      guesses: stage.pixels({ width: wide, height: h, scale, place,
        caption: `${name}: x̂₀, the guess from there` }),
    };
  });
  const chart = stage.chart({ width: 310, height: 2 * Math.max(110, h * scale) + 10, place: box,
    x: [T, 0], y: [0, 1], xTicks: ticks(0, T), xLabel: "t, falling",
    caption: "how far x̂₀ is from where its walk ends (rms)" });

  const at = () => clamp(stage.get("t"), 0, T);
  const pair = () => [walks[0], walks.find((walk) => walk.name === "DDIM" &&
    walk.steps === stage.get("steps") && walk.eta === stage.get("eta")) ?? walks[1]];
  const taken = (walk) => {
    const done = stepsTaken(walk.t[reached(walk.t, at())], T, walk.steps);
    return `${walk.name} after ${done} of ${walk.steps} steps`;
  };
  const bytes = (from, walk, k) => from.subarray((walk.first + k) * size, (walk.first + k + 1) * size);
  const ends = ([one, other]) => apart(bytes(x_t, one, one.t.length - 1),
    bytes(x_t, other, other.t.length - 1)).toFixed(2);
  function sentence() {
    const both = pair();
    return `t = ${at()}: ${both.map(taken).join(", ")}, η = ${both[1].eta}; they end ${ends(both)} apart (rms)`;
  }
  function paint(picture, values) {
    for (let i = 0; i < count; i++) {
      paintImage(picture.data, wide, i * (w + gap), 0, shape, i, (p) => values[p] / 127.5 - 1);
    }
    picture.put();
  }
  let key = "";
  stage.paints(["t", "steps", "eta"], (anew) => {
    const both = pair(), t = at(), wanted = both.map(({ first }) => first).join();
    if (wanted !== key) {
      key = wanted;
      const most = Math.max(...both.flatMap((walk) => [...walk.settled]));
      chart.y = [0, most * 1.08 || 1];
      chart.still = (c) => {
        for (const [which, walk] of both.entries()) {
          chart.curve(c, walk.t, walk.settled, which);
          if (walk.t.length <= 30) {
            for (const [k, halt] of walk.t.entries()) chart.dot(c, halt, walk.settled[k], which, 2.5);
          }
        }
        const places = both.map((walk) => reached(walk.t, 0.75 * T));
        const heights = both.map((walk, which) => walk.settled[places[which]]);
        for (const [which, walk] of both.entries()) { // the upper curve's name above it
          const upper = which ? heights[1] > heights[0] : heights[0] >= heights[1];
          chart.label(c, walk.name, walk.t[places[which]], heights[which], which,
            { dx: upper ? 8 : -38, dy: upper ? -14 : 14 });
        }
      };
      chart.fresh();
    }
    for (const [which, { name, states, guesses }] of views.entries()) {
      const walk = both[which], k = reached(walk.t, t);
      paint(states, bytes(x_t, walk, k));
      paint(guesses, bytes(x0_hat, walk, k));
      const who = count > 1 ? `${count} pictures` : "Picture", told = `at t = ${walk.t[k]}, ${taken(walk)}`;
      states.describe(`${who} x_t of ${name} ${told}.`);
      guesses.describe(`${who} x0_hat of ${name}, the clean data that the model sees ${told}.`);
    }
    chart.frame(anew, (c) => {
      chart.marker(c, t);
      for (const [which, walk] of both.entries()) {
        const k = reached(walk.t, t);
        chart.dot(c, walk.t[k], walk.settled[k], which, 5);
      }
    });
    const said = sentence();
    say(said);
    const now = both.map((walk) => `${walk.name} ${walk.settled[reached(walk.t, t)].toFixed(2)}`);
    chart.describe(`Curves of the distance between the guess x0_hat and the end of its walk, as ` +
      `t falls; now ${now.join(", ")}. ${said}`);
  });
  return () => stage.end();
}

const widget = { render };
export { apart, paintImage, reached, stepsTaken };
export default widget;
