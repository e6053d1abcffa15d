// Receptive-field explorer: which input pixels reach an output pixel, read from maps made once.

/** @import { Chart, Context } from "../shared/chart.js" */
/** @import { View } from "../shared/types" */
/** @import { ReceptiveFieldExplorerTraits } from "../shared/traits" */

import { DASHES } from "../shared/chart.js";
import { clamp, fromByte, typedArray } from "../shared/numbers.js";
import { element, offscreen, paintImage, ramp } from "../shared/pixels.js";
import { Stage } from "../shared/stage.js";
import { INFLUENCE_DECADES, INFLUENCE_LEVELS, TITLES } from "../shared/wire.js";

const GAUGE = 200; // width of the scale of colors in pixels

/**
 * How many pixels of one map (H x W bytes, 0 for no influence) are seen, and over how many rows and
 * columns.
 * @param {Uint8Array} map
 * @param {number[]} size [H, W]
 */
export function seen(map, [h, w]) {
  let count = 0;
  let [top, bottom, left, right] = [h, -1, w, -1];
  for (let p = 0; p < map.length; p++) {
    if (!map[p]) continue;
    const y = Math.floor(p / w);
    const x = p % w;
    count++;
    top = Math.min(top, y);
    bottom = Math.max(bottom, y);
    left = Math.min(left, x);
    right = Math.max(right, x);
  }
  const span = (/** @type {number} */ a, /** @type {number} */ b) => Math.max(0, b - a + 1);
  return { count, rows: span(top, bottom), columns: span(left, right) };
}

/**
 * Where seen pixels border on others: lines [x0, y0, x1, y1] along the pixels, as long as can be.
 * @param {Uint8Array} map
 * @param {number[]} size [H, W]
 */
export function edges(map, [h, w]) {
  const inside = (/** @type {number} */ x, /** @type {number} */ y) =>
    x >= 0 && y >= 0 && x < w && y < h && map[y * w + x] > 0;
  /** @type {number[][]} */
  const found = [];
  /**
   * @param {number} across
   * @param {number} along
   * @param {(a: number, b: number) => boolean} differs
   * @param {(a: number, from: number, to: number) => number[]} line
   */
  const trace = (across, along, differs, line) => {
    for (let a = 0; a <= across; a++) {
      for (let b = 0, from = -1; b <= along; b++) {
        const here = b < along && differs(a, b);
        if (here && from < 0) from = b;
        if (!here && from >= 0) {
          found.push(line(a, from, b));
          from = -1;
        }
      }
    }
  };
  trace(
    w,
    h,
    (x, y) => inside(x, y) !== inside(x - 1, y),
    (x, y0, y1) => [x, y0, x, y1],
  );
  trace(
    h,
    w,
    (y, x) => inside(x, y) !== inside(x, y - 1),
    (y, x0, x1) => [x0, y, x1, y],
  );
  return found;
}

/**
 * The map in colors, RGBA; pixels without influence are left clear.
 * @param {Uint8ClampedArray} data
 * @param {Uint8Array} map
 */
export function paintField(data, map) {
  data.fill(0);
  for (let p = 0; p < map.length; p++) {
    if (map[p]) ramp(data, 4 * p, (map[p] - 1) / INFLUENCE_LEVELS);
  }
}

/**
 * Draws a picture over the axes of a chart, its pixels sharp.
 * @param {Context} context
 * @param {Chart} chart
 * @param {{ canvas: HTMLCanvasElement }} picture
 */
function blit(context, chart, picture) {
  const { left, top, right, bottom } = chart.box;
  context.imageSmoothingEnabled = false;
  context.drawImage(picture.canvas, left, top, right - left, bottom - top);
}

/**
 * The scale of the colors, from a thousandth of the largest influence to the largest.
 * @param {Stage<ReceptiveFieldExplorerTraits>} stage
 */
function gauge(stage) {
  /** @type {[number, string][]} */
  const ticks = Array.from({ length: INFLUENCE_DECADES + 1 }, (_, k) => {
    const left = INFLUENCE_DECADES - k;
    return [k / INFLUENCE_DECADES, left ? `1/${10 ** left}` : "largest"];
  });
  const chart = stage.chart({
    width: 60 + GAUGE,
    height: 34,
    place: stage.root,
    x: [0, 1],
    y: [0, 1],
    xTicks: ticks,
    yTicks: [],
    margins: [2, 34, 18, 26],
    caption: "influence, relative to the largest; an empty square: none at all",
  });
  const colors = offscreen(GAUGE, 1);
  for (let i = 0; i < GAUGE; i++) ramp(colors.data, 4 * i, i / (GAUGE - 1));
  colors.put();
  chart.background = (context) => blit(context, chart, colors);
  chart.describe(
    "The scale of the colors: from dark, a thousandth of the largest influence, to light, " +
      "the largest.",
  );
  return chart;
}

/** @param {View<ReceptiveFieldExplorerTraits>} view */
export function render({ model, el }) {
  const stage = new Stage({ model, el }, TITLES.receptive);
  const fields = typedArray(model, "fields", Uint8Array);
  const x_t = typedArray(model, "x_t", Uint8Array);
  const names = model.get("model_names");
  const shape = model.get("shape");
  const [, h, w] = shape;
  const plane = h * w;

  stage.slider({
    label: "output pixel",
    name: "pixel",
    min: 0,
    max: plane - 1,
    wide: true,
    text: String,
    spoken: (p) => `pixel ${p} of 0 to ${plane - 1}. ${sentence()}`,
  });
  stage.play({ name: "pixel", range: () => [0, plane - 1], seconds: 16 });
  const second = stage.row();
  stage.slider({
    label: "row",
    name: "pixel",
    min: 0,
    max: h - 1,
    place: second,
    toValue: (y) => y * w + column(),
    toPosition: () => row(),
    text: () => String(row()),
    spoken: () => `row ${row()} of 0 to ${h - 1}. ${sentence()}`,
  });
  stage.slider({
    label: "column",
    name: "pixel",
    min: 0,
    max: w - 1,
    place: second,
    toValue: (x) => row() * w + x,
    toPosition: () => column(),
    text: () => String(column()),
    spoken: () => `column ${column()} of 0 to ${w - 1}. ${sentence()}`,
  });
  second.append(element("span", {}, "or click or drag on a picture"));
  const say = stage.line();
  const box = stage.panels();

  const columns = Math.min(3, names.length + 1); // side by side in a notebook's column
  const across = Math.min(280, Math.floor((810 - 18 * (columns - 1)) / columns) - 2);
  const scale = Math.max(2, Math.floor(across / Math.max(h, w)));
  const size = { columns: w, rows: h, scale, place: box };
  const input = stage.pictureChart({ ...size, caption: "the input, and what pixel + sees" });
  const charts = names.map((name) => stage.pictureChart({ ...size, caption: name }));
  const inputPicture = offscreen(w, h);
  const pictures = charts.map(() => offscreen(w, h));
  paintImage(inputPicture.data, w, 0, 0, shape, 0, (p) => fromByte(x_t[p]));
  inputPicture.put();
  const colors = gauge(stage);

  const pixel = () => clamp(stage.get("pixel"), 0, plane - 1);
  const row = () => Math.floor(pixel() / w);
  const column = () => pixel() % w;
  /** @param {number} k which model */
  function map(k) {
    const from = (k * plane + pixel()) * plane;
    return fields.subarray(from, from + plane);
  }
  /** @param {number} k which model */
  function sees(k) {
    const { count, rows, columns } = seen(map(k), [h, w]);
    const part = Math.round((100 * count) / plane);
    return count ? `sees ${columns} × ${rows} pixels (${part} %)` : "sees nothing";
  }
  const sentence = () => names.map((name, k) => `${name} ${sees(k)}`).join("; ");

  for (const chart of [input, ...charts]) {
    chart.canvas.style.cursor = "crosshair";
    chart.canvas.style.touchAction = "none"; // a finger that drags here does not scroll the page
    const choose = (/** @type {PointerEvent} */ event) => {
      const bounds = chart.canvas.getBoundingClientRect(); // may be narrower than drawn
      const x = ((event.clientX - bounds.left) / bounds.width) * chart.width - 1;
      const y = ((event.clientY - bounds.top) / bounds.height) * chart.height - 1;
      const i = clamp(Math.floor(y / scale), 0, h - 1);
      const j = clamp(Math.floor(x / scale), 0, w - 1);
      stage.set("pixel", i * w + j);
    };
    stage.listen(chart.canvas, "pointerdown", (event) => {
      if (event.button) return;
      chart.canvas.setPointerCapture(event.pointerId);
      choose(event);
    });
    stage.listen(chart.canvas, "pointermove", (event) => {
      if (event.buttons & 1) choose(event);
    });
  }

  /**
   * The edge between what is seen and what is not, in the color and dash of model `k`.
   * @param {Context} c
   * @param {Chart} chart
   * @param {Uint8Array} values
   * @param {number} k
   */
  function outline(c, chart, values, k) {
    const { theme } = stage;
    const which = k % DASHES.length;
    c.beginPath();
    for (const [x0, y0, x1, y1] of edges(values, [h, w])) {
      c.moveTo(chart.px(x0), chart.py(y0));
      c.lineTo(chart.px(x1), chart.py(y1));
    }
    c.lineWidth = 4;
    c.strokeStyle = theme.paper;
    c.setLineDash([]);
    c.stroke();
    c.lineWidth = 2;
    c.strokeStyle = theme.curves[which];
    c.setLineDash(DASHES[which]);
    c.stroke();
    c.setLineDash([]);
  }
  /**
   * Marks the output pixel.
   * @param {Context} c
   * @param {Chart} chart
   */
  function cross(c, chart) {
    const x = chart.px(column() + 0.5);
    const y = chart.py(row() + 0.5);
    const arm = Math.max(5, scale * 0.7);
    for (const [width, color] of /** @type {const} */ ([
      [5, stage.theme.paper],
      [2, stage.theme.ink],
    ])) {
      c.lineWidth = width;
      c.strokeStyle = color;
      chart.segment(c, x - arm, y, x + arm, y);
      chart.segment(c, x, y - arm, x, y + arm);
    }
  }
  /**
   * @param {Context} c
   * @param {Chart} chart
   */
  function frame(c, chart) {
    const { left, top, right, bottom } = chart.box;
    c.strokeStyle = stage.theme.ink;
    c.lineWidth = 1;
    c.strokeRect(left - 0.5, top - 0.5, right - left + 1, bottom - top + 1);
  }

  stage.paints(["pixel"], (full) => {
    const maps = names.map((_, k) => map(k));
    input.frame(full, (c) => {
      blit(c, input, inputPicture);
      frame(c, input);
      for (const [k, values] of maps.entries()) outline(c, input, values, k);
      cross(c, input);
    });
    const where = `row ${row()}, column ${column()}`;
    for (const [k, chart] of charts.entries()) {
      paintField(pictures[k].data, maps[k]);
      pictures[k].put();
      chart.frame(full, (c) => {
        blit(c, chart, pictures[k]);
        frame(c, chart);
        outline(c, chart, maps[k], k);
        cross(c, chart);
      });
      chart.describe(`${names[k]}: the output pixel at ${where} ${sees(k)} of ${w} × ${h}.`);
    }
    colors.frame(full);
    say(`${where}: ${sentence()}`);
    input.describe(
      `The input picture, ${w} × ${h} pixels, with the outline of what the output pixel at ` +
        `${where} sees in each model: ${sentence()}`,
    );
  });
  return () => stage.end();
}

export default { render };
