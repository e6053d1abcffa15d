// Guidance explorer: samples that were drawn at several scales, and what a judge says of them.

/** @import { Chart } from "../shared/chart.js" */
/** @import { Theme, View } from "../shared/types" */
/** @import { GuidanceExplorerTraits } from "../shared/traits" */

import { FONT } from "../shared/chart.js";
import { clamp, fromByte, largest, typedArray } from "../shared/numbers.js";
import { contextOf, describe, element, paintImage } from "../shared/pixels.js";
import { Stage } from "../shared/stage.js";
import { ALL, TITLES } from "../shared/wire.js";

const ROOM = { width: 580, height: 330 }; // for all samples
const HEAD = 18; // height of a line of text above or below samples
const GAP = 2; // between samples

/**
 * @typedef {object} Spot
 * @property {number} i which sample
 * @property {number} column
 * @property {number} row
 */

/**
 * Where the shown samples stand: by class in columns, or those of one class in rows of five.
 * @param {number[]} owners the class of each sample
 * @param {number[]} classes
 * @param {number} chosen a class, or ALL
 * @returns {Spot[]}
 */
export function places(owners, classes, chosen) {
  if (chosen === ALL) {
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

/**
 * A dashed frame around a picture, with a word in its corner.
 * @param {CanvasRenderingContext2D} context
 * @param {{ x: number, y: number, width: number, height: number }} box
 * @param {Theme} theme
 * @param {string} word
 */
function frame(context, { x, y, width, height }, theme, word) {
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

/** @param {View<GuidanceExplorerTraits>} view */
export function render({ model, el }) {
  const stage = new Stage({ model, el }, TITLES.guidance);
  const scales = model.get("scales");
  const classes = model.get("classes");
  const last = scales.length - 1;
  const names = model.get("class_names");
  const owners = model.get("owners");
  const counts = model.get("counts");
  const shape = model.get("shape");
  const [, h, w] = shape;
  const images = typedArray(model, "images", Uint8Array);
  const reads = typedArray(model, "reads", Uint8Array);
  const accuracy = typedArray(model, "accuracy", Float32Array);
  const spread = typedArray(model, "spread", Float32Array);
  const real = typedArray(model, "real", Float32Array);
  const judged = accuracy.length > 0;
  const kinds = classes.length + 1;
  const name = (/** @type {number} */ label) => names[label] ?? String(label);

  stage.slider({
    label: "guidance scale s",
    name: "place",
    min: 0,
    max: last,
    wide: true,
    text: () => String(scales[at()]),
    spoken: () => sentence(),
  });
  stage.play({ name: "place", range: () => [0, last] });
  /** @type {[number, string][]} */
  const each = classes.map((label) => [label, name(label)]);
  stage.choice({ label: "class", name: "chosen", options: [[ALL, "all classes"], ...each] });
  const say = stage.line();
  const box = stage.panels();

  const at = () => clamp(stage.get("place"), 0, last);
  const shownClass = () => (classes.includes(stage.get("chosen")) ? stage.get("chosen") : ALL);
  /** The column of the measures that belongs to what is shown; the last is of all classes. */
  const kind = () => (shownClass() === ALL ? classes.length : classes.indexOf(shownClass()));
  const percent = (/** @type {number} */ share) => `${+(100 * share).toFixed(1)} %`;
  function sentence() {
    const k = at() * kinds + kind();
    const ordered = shownClass() === ALL ? "as ordered" : `as ${name(shownClass())}`;
    const what = `s = ${scales[at()]}: ${counts[kind()]} samples`;
    if (!judged) return what;
    const finite = Number.isFinite(spread[k]);
    const wide = finite ? `, spread within a class ${spread[k].toFixed(2)}` : "";
    const data = wide && real.length ? ` (real data ${real[kind()].toFixed(2)})` : "";
    return `${what}, ${percent(accuracy[k])} read ${ordered}${wide}${data}`;
  }

  const canvas = element("canvas", { role: "img", class: "tx-chart" });
  const caption = judged ? "the samples; framed: what the judge reads otherwise" : "the samples";
  stage.captioned(canvas, caption, box);
  const small = element("canvas");
  const behind = contextOf(small);
  const side = element("div", { class: "tx-side" });
  if (judged) box.append(side);

  /** @type {{ chart: Chart, values: Float32Array, real: Float32Array, drawn: number }[]} */
  const charts = [];
  /** @type {[number, string][]} */
  const xTicks = scales.map((scale, k) => [k, String(scale)]);
  const common = {
    width: 204,
    height: 166,
    x: [-0.3, last + 0.3],
    xTicks,
    place: side,
    xLabel: "scale s",
    margins: [10, 8, 34, 42],
  };
  if (judged) {
    const chart = stage.chart({
      ...common,
      y: [0, 1.08],
      caption: "accuracy: share read as ordered",
      yTicks: [
        [0, "0"],
        [0.5, "50 %"],
        [1, "100 %"],
      ],
    });
    charts.push({ chart, values: accuracy, real: new Float32Array(0), drawn: NaN });
  }
  const finite = [...spread].filter(Number.isFinite);
  if (finite.length) {
    // It takes two samples of a class.
    const top = largest([...finite, ...[...real].filter(Number.isFinite)]);
    const chart = stage.chart({
      ...common,
      y: [0, 1.1 * (top || 1)],
      caption: "diversity: spread within a class",
    });
    charts.push({ chart, values: spread, real, drawn: NaN });
  }

  const pixels = behind.createImageData(w, h);
  /**
   * How the samples of a class are laid out, or those of all.
   * @param {number} chosen
   */
  function layout(chosen) {
    const spots = places(owners, classes, chosen);
    const one = chosen !== ALL;
    const columns = one ? 1 + largest(spots.map((s) => s.column)) : classes.length;
    const rows = 1 + largest(spots.map((s) => s.row));
    const room = Math.min(ROOM.width / columns, ROOM.height / rows - (one ? HEAD : 0)) - GAP;
    const scale = Math.max(1, Math.min(6, Math.floor(room / Math.max(w, h))));
    const cell = { width: w * scale + GAP, height: h * scale + GAP + (one ? HEAD : 0) };
    const width = columns * cell.width;
    const height = rows * cell.height + (one ? 0 : HEAD);
    return { chosen, spots, scale, cell, one, width, height };
  }
  const everyone = layout(ALL);
  let current = everyone;
  small.width = w;
  small.height = h;

  function paintSamples() {
    const chosen = shownClass();
    const sharp = window.devicePixelRatio || 1;
    const { theme } = stage;
    if (current.chosen !== chosen) current = layout(chosen);
    const { spots, scale, cell, one } = current;
    // At least the room of all samples, so that nothing jumps.
    const width = Math.max(current.width, everyone.width);
    const height = Math.max(current.height, everyone.height);
    canvas.style.width = `${width}px`;
    canvas.width = Math.round(width * sharp);
    canvas.height = Math.round(height * sharp);
    const c = contextOf(canvas);
    c.setTransform(sharp, 0, 0, sharp, 0, 0);
    c.fillStyle = theme.paper;
    c.fillRect(0, 0, width, height);
    c.imageSmoothingEnabled = false;
    c.font = FONT;
    c.textBaseline = "middle";
    c.textAlign = "center";
    const inner = cell.width - GAP;
    const middle = (/** @type {number} */ column) => column * cell.width + inner / 2;
    if (!one) {
      c.fillStyle = theme.ink;
      for (const [i, label] of classes.entries()) {
        c.fillText(name(label), middle(i), HEAD / 2, inner);
      }
    }
    for (const { i, column, row } of spots) {
      const x = column * cell.width;
      const y = row * cell.height + (one ? 0 : HEAD);
      const from = at() * owners.length + i;
      paintImage(pixels.data, w, 0, 0, shape, from, (p) => fromByte(images[p]));
      behind.putImageData(pixels, 0, 0);
      c.drawImage(small, x, y, w * scale, h * scale);
      if (!judged) continue;
      const wrong = reads[from] !== owners[i];
      const read = name(reads[from]);
      if (one) {
        c.fillStyle = wrong ? theme.curves[1] : theme.ink;
        const text = `${wrong ? "✗ " : ""}read as ${read}`;
        c.fillText(text, middle(column), y + h * scale + HEAD / 2, inner);
      }
      const picture = { x, y, width: w * scale, height: h * scale };
      if (wrong) frame(c, picture, theme, one ? "" : read);
    }
  }

  /** @param {boolean} full */
  function paintCharts(full) {
    const k = kind();
    for (const entry of charts) {
      const { chart, values } = entry;
      if (entry.drawn !== k) {
        entry.drawn = k;
        const line = entry.real.length ? entry.real[k] : NaN;
        const ys = scales.map((_, i) => values[i * kinds + k]);
        chart.background = (c) => {
          if (Number.isFinite(line)) {
            chart.curve(c, chart.x, [line, line], 1);
            chart.label(c, "real data (dashed)", last, line, 1, { dx: 0, dy: -11 });
          }
          chart.curve(c, [...ys.keys()], ys, 0);
          for (const [i, y] of ys.entries()) if (Number.isFinite(y)) chart.dot(c, i, y, 0, 2.5);
        };
        chart.invalidate();
      }
      chart.frame(full, (c) => {
        chart.marker(c, at());
        const y = values[at() * kinds + k];
        if (Number.isFinite(y)) chart.dot(c, at(), y, 0);
      });
    }
  }

  stage.paints(["place", "chosen"], (full) => {
    const text = sentence();
    const label = shownClass();
    say(text);
    paintSamples();
    const { spots } = current;
    const shown =
      label === ALL
        ? `Samples of ${classes.length} classes, one a column`
        : `${spots.length} samples of class ${name(label)}`;
    const misread = spots.filter(({ i }) => reads[at() * owners.length + i] !== owners[i]).length;
    const framed = `; ${misread} of the ${spots.length} are framed: read as another class`;
    describe(canvas, `${shown}${judged ? framed : ""}. ${text}`);
    paintCharts(full);
    const [shares, spreads] = charts;
    shares?.chart.describe(`Share of samples read as ordered, over the scale. ${text}`);
    spreads?.chart.describe(`Spread of samples within a class, over the scale. ${text}`);
  });
  return () => stage.end();
}

export default { render };
