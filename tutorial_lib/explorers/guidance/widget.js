// Guidance explorer: samples that were drawn at several scales, and what a judge says of them.

const EVERYONE = -1, ROOM = 580, HEAD = 18, GAP = 2;

/** Where the shown samples stand: by class in columns, or those of one class in rows of five. */
function places(owners, classes, chosen) {
  if (chosen === EVERYONE) {
    const rows = classes.map(() => 0);
    return owners.map((owner, i) => {
      const column = classes.indexOf(owner);
      return { i, column, row: rows[column]++ };
    });
  }
  const own = owners.flatMap((owner, i) => (owner === chosen ? [i] : []));
  const columns = Math.min(5, own.length);
  return own.map((i, n) => ({ i, column: n % columns, row: Math.floor(n / columns) }));
}

function render({ model, el }) {
  const stage = new Stage({ model, el }, "Guidance explorer");
  const scales = model.get("scales"), classes = model.get("classes"), last = scales.length - 1;
  const names = model.get("class_names"), owners = model.get("owners"), counts = model.get("counts");
  const shape = model.get("shape"), [channels, h, w] = shape, size = channels * h * w;
  const images = numbers(model, "images", Uint8Array), reads = numbers(model, "reads", Uint8Array);
  const accuracy = numbers(model, "accuracy", Float32Array);
  const spread = numbers(model, "spread", Float32Array), real = numbers(model, "real", Float32Array);
  const judged = accuracy.length > 0, kinds = classes.length + 1;
  const name = (label) => names[label] ?? String(label);

  stage.slider({ label: "guidance scale s", name: "place", min: 0, max: last, wide: true,
    says: () => String(scales[at()]), reads: () => sentence() });
  stage.play({ name: "place", range: () => [0, last] });
  stage.choice({ label: "class", name: "chosen",
    options: [[EVERYONE, "all classes"], ...classes.map((label) => [label, name(label)])] });
  const say = stage.line(), box = stage.panels();

  const at = () => clamp(stage.get("place"), 0, last);
  const who = () => (classes.includes(stage.get("chosen")) ? stage.get("chosen") : EVERYONE);
  const kind = () => (who() === EVERYONE ? classes.length : classes.indexOf(who()));
  const percent = (share) => `${+(100 * share).toFixed(1)} %`;
  function sentence() {
    const k = at() * kinds + kind(), ordered = who() === EVERYONE ? "as ordered" : `as ${name(who())}`;
    const what = `s = ${scales[at()]}: ${counts[kind()]} samples`;
    if (!judged) return what;
    const wide = Number.isFinite(spread[k]) ? `, spread within a class ${spread[k].toFixed(2)}` : "";
    const data = wide && real.length ? ` (real data ${real[kind()].toFixed(2)})` : "";
    return `${what}, ${percent(accuracy[k])} read ${ordered}${wide}${data}`;
  }

  const canvas = element("canvas", { role: "img", class: "tx-chart" });
  stage.captioned(canvas, judged ? "the samples; framed: what the judge reads otherwise"
    : "the samples", box);
  const small = document.createElement("canvas"), behind = small.getContext("2d");
  const side = element("div", { class: "tx-side" });
  if (judged) box.append(side);
  const ticks = scales.map((scale, k) => [k, String(scale)]);
  const room = { width: 204, height: 166, x: [-0.3, last + 0.3], xTicks: ticks, place: side,
    xLabel: "scale s", margins: [10, 8, 34, 42] };
  const charts = judged && {
    accuracy: stage.chart({ ...room, y: [0, 1.08], caption: "accuracy: share read as ordered",
      yTicks: [[0, "0"], [0.5, "50 %"], [1, "100 %"]] }),
  };
  if (spread.some(Number.isFinite)) { // it takes two samples of a class
    const top = Math.max(...spread.filter(Number.isFinite), ...real.filter(Number.isFinite));
    charts.spread = stage.chart({ ...room, y: [0, 1.1 * (top || 1)],
      caption: "diversity: spread within a class" });
  }

  let pixels, seen, full;
  /** Sizes the canvas for the samples that are to be shown. */
  function lay(chosen) {
    const spots = places(owners, classes, chosen);
    const columns = chosen === EVERYONE ? classes.length : 1 + Math.max(...spots.map((s) => s.column));
    const rows = 1 + Math.max(...spots.map((s) => s.row)), one = chosen !== EVERYONE;
    const most = Math.min(ROOM / columns, 330 / rows - (one ? HEAD : 0)) - GAP;
    const scale = Math.max(1, Math.min(6, Math.floor(most / Math.max(w, h))));
    small.width = w;
    small.height = h;
    pixels = behind.createImageData(w, h);
    const cell = { width: w * scale + GAP, height: h * scale + GAP + (one ? HEAD : 0) };
    const size = { width: columns * cell.width, height: rows * cell.height + (one ? 0 : HEAD) };
    full ??= one ? lay(EVERYONE) : size; // the room stays the same, so that nothing jumps
    return { chosen, spots, scale, cell, one, width: Math.max(size.width, full.width),
      height: Math.max(size.height, full.height) };
  }
  function paintSamples() {
    const chosen = who(), sharp = window.devicePixelRatio || 1, { theme } = stage;
    if (seen?.chosen !== chosen) seen = lay(chosen);
    const { spots, scale, cell, one, width, height } = seen;
    canvas.style.width = `${width}px`;
    canvas.width = Math.round(width * sharp);
    canvas.height = Math.round(height * sharp);
    const c = canvas.getContext("2d");
    c.setTransform(sharp, 0, 0, sharp, 0, 0);
    c.fillStyle = theme.paper;
    c.fillRect(0, 0, width, height);
    c.imageSmoothingEnabled = false;
    c.font = FONT;
    c.textBaseline = "middle";
    c.textAlign = "center";
    const middle = (column) => column * cell.width + (cell.width - GAP) / 2;
    if (!one) {
      c.fillStyle = theme.ink;
      for (const [i, label] of classes.entries()) {
        c.fillText(name(label), middle(i), HEAD / 2, cell.width - GAP);
      }
    }
    for (const { i, column, row } of spots) {
      const x = column * cell.width, y = row * cell.height + (one ? 0 : HEAD);
      const from = at() * owners.length + i;
      paintImage(pixels.data, w, 0, 0, shape, from, (p) => images[p] / 127.5 - 1);
      behind.putImageData(pixels, 0, 0);
      c.drawImage(small, x, y, w * scale, h * scale);
      if (!judged) continue;
      const wrong = reads[from] !== owners[i];
      if (one) {
        c.fillStyle = wrong ? theme.curves[1] : theme.ink;
        c.fillText(`${wrong ? "✗ " : ""}read as ${name(reads[from])}`, middle(column),
          y + h * scale + HEAD / 2, cell.width - GAP);
      }
      if (wrong) frame(c, x, y, w * scale, h * scale, theme, one ? "" : name(reads[from]));
    }
  }

  stage.paints(["place", "chosen"], (anew) => {
    const said = sentence(), k = kind(), label = who();
    say(said);
    paintSamples();
    const shown = label === EVERYONE ? `Samples of ${classes.length} classes, one a column`
      : `${seen.spots.length} samples of class ${name(label)}`;
    const misread = judged ? seen.spots.filter(({ i }) => reads[at() * owners.length + i] !==
      owners[i]).length : 0;
    describe(canvas, `${shown}${judged ? `; ${misread} of the ${seen.spots.length} are framed: ` +
      "read as another class" : ""}. ${said}`);
    if (!judged) return;
    const xs = scales.map((_, i) => i);
    for (const [chart, values, line] of [[charts.accuracy, accuracy, NaN],
      [charts.spread, spread, real.length ? real[k] : NaN]]) {
      if (!chart) continue;
      if (chart.shown !== k) {
        chart.shown = k;
        const ys = xs.map((i) => values[i * kinds + k]);
        chart.still = (c) => {
          if (Number.isFinite(line)) {
            chart.curve(c, chart.x, [line, line], 1);
            chart.label(c, "real data (dashed)", last, line, 1, { dx: 0, dy: -11 });
          }
          chart.curve(c, xs, ys, 0);
          for (const i of xs) if (Number.isFinite(ys[i])) chart.dot(c, i, ys[i], 0, 2.5);
        };
        chart.fresh();
      }
      chart.frame(anew, (c) => {
        chart.marker(c, at());
        const y = values[at() * kinds + k];
        if (Number.isFinite(y)) chart.dot(c, at(), y, 0);
      });
    }
    charts.accuracy.describe(`Share of samples read as ordered, over the scale. ${said}`);
    charts.spread?.describe(`Spread of samples within a class, over the scale. ${said}`);
  });
  return () => stage.end();
}

/** A dashed frame around a picture, with a word in its corner. */
function frame(context, x, y, width, height, theme, word) {
  context.strokeStyle = theme.curves[1];
  context.lineWidth = 2;
  context.setLineDash([5, 3]);
  context.strokeRect(x + 1, y + 1, width - 2, height - 2);
  context.setLineDash([]);
  if (!word) return;
  const wide = Math.min(width, context.measureText(word).width + 6);
  context.fillStyle = theme.paper;
  context.fillRect(x + width - wide, y, wide, 15);
  context.fillStyle = theme.curves[1];
  context.fillText(word, x + width - wide / 2, y + 8, wide);
}

const widget = { render };
export { places };
export default widget;
