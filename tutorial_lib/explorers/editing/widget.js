// Editing explorer: an area is painted, and the kernel redraws it several times.

/** @import { Context } from "../shared/chart.js" */
/** @import { View } from "../shared/types" */
/** @import { EditingExplorerTraits } from "../shared/traits" */

import { Kernel } from "../shared/kernel.js";
import { clamp, copied, fromByte, typedArray } from "../shared/numbers.js";
import { element, offscreen, paintImage } from "../shared/pixels.js";
import { Stage } from "../shared/stage.js";
import { ALL, AREAS, ASK, LEAST_STRENGTH, PAINTED, READY, TELL, TITLES } from "../shared/wire.js";

const BRUSH = 2.3; // radius of the brush, in pixels of the picture
const GAP = 2; // between completions

/**
 * What is redrawn for a number of AREAS: a byte for each pixel, 1 where it is.
 * @param {number} area
 * @param {number} h
 * @param {number} w
 */
export function areaMask(area, h, w) {
  const mask = new Uint8Array(h * w);
  const quarter = [Math.floor(h / 4), Math.floor(w / 4)];
  for (let y = 0; y < h; y++) {
    for (let x = 0; x < w; x++) {
      const inside = [
        y >= Math.floor(h / 2),
        x >= Math.floor(w / 2),
        y >= quarter[0] && y < h - quarter[0] && x >= quarter[1] && x < w - quarter[1],
        true,
      ];
      mask[y * w + x] = inside[area] ? 1 : 0;
    }
  }
  return mask;
}

/**
 * `mask` with `value` in all pixels near the way from one place to another, so that a quick hand
 * leaves no gaps. Places are [row, column], in pixels.
 * @param {Uint8Array} mask
 * @param {number[]} size [H, W]
 * @param {number[]} from
 * @param {number[]} to
 * @param {number} value
 */
export function painted(mask, [h, w], from, to, value) {
  const found = mask.slice();
  const [dy, dx] = [to[0] - from[0], to[1] - from[1]];
  const length = dx * dx + dy * dy;
  for (let y = 0; y < h; y++) {
    for (let x = 0; x < w; x++) {
      const along = ((y - from[0]) * dy + (x - from[1]) * dx) / (length || 1);
      const share = clamp(along, 0, 1);
      const away = Math.hypot(y - from[0] - share * dy, x - from[1] - share * dx);
      if (away <= BRUSH) found[y * w + x] = value;
    }
  }
  return found;
}

/** @param {View<EditingExplorerTraits>} view */
export function render({ model, el }) {
  const stage = new Stage({ model, el }, TITLES.editing);
  const shape = model.get("shape");
  const [count, channels, h, w] = shape;
  const picture = [channels, h, w];
  const size = channels * h * w;
  const answers = model.get("answers");
  const names = model.get("class_names");
  const images = typedArray(model, "images", Uint8Array);
  const ready = typedArray(model, "ready", Uint8Array);
  const alone = !model.widget_manager; // a page of its own has no kernel to ask

  const chosen = () => clamp(stage.get("chosen"), 0, count - 1);
  const row = () => clamp(stage.get("row"), 0, h - 1);
  const column = () => clamp(stage.get("column"), 0, w - 1);
  const mask = () => typedArray(model, "mask", Uint8Array);
  const strength = () => stage.get("percent") / 100;

  stage.slider({
    label: "picture",
    name: "chosen",
    min: 0,
    max: count - 1,
    text: () => `${chosen() + 1} of ${count}`,
    spoken: () => sentence(),
  });
  /** @type {[number, string][]} */
  const areas = AREAS.map((name, k) => [k, name]);
  stage.choice({
    label: "redraw",
    name: "area",
    options: alone ? areas.slice(0, READY) : [...areas, [PAINTED, "what I paint"]],
  });
  if (names.length && !alone) {
    /** @type {[number, string][]} */
    const labels = names.map((name, k) => [k, name]);
    stage.choice({ label: "as", name: "label", options: [[ALL, "the model likes"], ...labels] });
  }
  if (!alone) {
    stage.slider({
      label: "strength",
      name: "percent",
      min: LEAST_STRENGTH,
      max: 100,
      step: 5,
      text: () => strength().toFixed(2),
      spoken: () => `strength ${strength().toFixed(2)}`,
    });
  }
  const brush = stage.row();
  const note = element("span", { class: "tx-note", role: "status" });
  if (!alone) {
    brush.append(element("span", {}, "paint on the picture, or here:"));
    for (const [name, least, most] of /** @type {const} */ ([
      ["row", 0, h - 1],
      ["column", 0, w - 1],
    ])) {
      stage.slider({
        label: name,
        name,
        min: least,
        max: most,
        place: brush,
        text: String,
        spoken: (value) => `${name} ${value} of 0 to ${most}`,
      });
    }
    stage.button("Paint", () => stroke([row(), column()], [row(), column()]), brush);
    stage.toggle({ label: "erase", name: "erases", place: brush });
    stage.button("Clear", () => paintArea(PAINTED, new Uint8Array(h * w)), brush);
    stage.button("New noise", () => stage.set("noise", stage.get("noise") + 1), brush);
  }
  brush.append(note);
  const say = stage.line();
  const box = stage.panels();

  const scale = Math.max(2, Math.floor(252 / Math.max(h, w)));
  const canvas = stage.pictureChart({
    columns: w,
    rows: h,
    scale,
    place: box,
    caption: alone ? "colored: to be redrawn" : "colored: to be redrawn; paint here",
  });
  const columns = answers > 4 ? Math.ceil(answers / 2) : Math.min(2, answers);
  const rows = Math.ceil(answers / columns);
  const wide = columns * (w + GAP) - GAP;
  const high = rows * (h + GAP) - GAP;
  const each = Math.max(1, Math.min(4, Math.floor(480 / wide)));
  const result = stage.pixels({
    width: wide,
    height: high,
    scale: each,
    place: box,
    caption: "completions",
  });
  const original = offscreen(w, h);

  // What the completions belong to: everything that they depend on.
  const key = () =>
    [
      chosen(),
      stage.get("label"),
      stage.get("percent"),
      stage.get("noise"),
      mask().join(""),
    ].join();
  let drawn = new Uint8Array(0);
  let drawnFor = "";
  let at = 0; // the step that `drawn` has reached
  let error = "";

  /** The completions that were made with the explorer, where they are what is asked for. */
  function made() {
    const area = stage.get("area");
    const plain = stage.get("label") === ALL && stage.get("percent") === 100;
    if (area < 0 || area >= READY || stage.get("noise") || !plain) return null;
    const from = (chosen() * READY + area) * answers * size;
    return ready.subarray(from, from + answers * size);
  }
  function sentence() {
    const area = stage.get("area");
    const part = area === PAINTED ? "masked part" : AREAS[area];
    const what = area === AREAS.length - 1 ? part : `the ${part}`; // the last is "everything"
    const label = stage.get("label");
    const as = names.length && label !== ALL ? ` as ${names[label]}` : "";
    const pixels = mask().reduce((sum, one) => sum + one, 0);
    const share = Math.round((100 * pixels) / (h * w));
    const how = `strength ${strength().toFixed(2)}`;
    return `picture ${chosen() + 1} of ${count}: redraw ${what}${as}, ${share} % of it, ${how}`;
  }

  /**
   * @param {number} area
   * @param {Uint8Array} values
   */
  function paintArea(area, values) {
    stage.set("mask", new DataView(values.buffer));
    stage.set("area", area);
    stage.redraw();
  }
  /**
   * @param {number[]} from
   * @param {number[]} to
   */
  function stroke(from, to) {
    const value = stage.get("erases") ? 0 : 1;
    paintArea(PAINTED, painted(mask(), [h, w], from, to, value));
  }
  stage.follow("area", () => {
    const area = stage.get("area");
    if (area !== PAINTED) stage.set("mask", new DataView(areaMask(area, h, w).buffer));
  });

  if (!alone) {
    canvas.canvas.style.cursor = "crosshair";
    canvas.canvas.style.touchAction = "none"; // a finger that paints here does not scroll the page
    /** @type {number[] | null} */
    let before = null;
    const place = (/** @type {PointerEvent} */ event) => {
      const bounds = canvas.canvas.getBoundingClientRect(); // may be narrower than drawn
      const x = ((event.clientX - bounds.left) / bounds.width) * canvas.width - 1;
      const y = ((event.clientY - bounds.top) / bounds.height) * canvas.height - 1;
      return [clamp(y / scale - 0.5, -1, h), clamp(x / scale - 0.5, -1, w)];
    };
    const paint = (/** @type {PointerEvent} */ event) => {
      const here = place(event);
      stroke(before ?? here, here);
      stage.set("row", clamp(Math.round(here[0]), 0, h - 1));
      stage.set("column", clamp(Math.round(here[1]), 0, w - 1));
      before = here;
    };
    stage.listen(canvas.canvas, "pointerdown", (event) => {
      if (event.button) return;
      canvas.canvas.setPointerCapture(event.pointerId);
      before = null;
      paint(event);
    });
    stage.listen(canvas.canvas, "pointermove", (event) => {
      if (event.buttons & 1) paint(event);
    });
  }

  /** @type {Kernel<EditingExplorerTraits> | null} */
  let kernel = null;
  let asked = "";
  const handlers = {
    [TELL.HEARD]: () => {
      error = "";
    },
    [TELL.FAILED]: (/** @type {{ text: string }} */ { text }) => {
      error = text;
    },
    [TELL.FILLING]: (
      /** @type {{ key: string, t: number }} */ content,
      /** @type {DataView[]} */ buffers,
    ) => {
      error = "";
      drawn = copied(buffers[0], Uint8Array);
      drawnFor = content.key;
      at = content.t;
      stage.redraw();
    },
    [TELL.FILLED]: () => {},
  };
  /** Asks for completions of what is shown, if there are none; not while some are on their way. */
  function want() {
    if (!kernel || made() || busy) return;
    const now = key();
    if (now === drawnFor || now === asked) return;
    asked = now;
    busy = true;
    kernel.ask(ASK.FILL, { key: now });
  }
  let busy = false; // completions are on their way
  if (!alone) {
    const done = (/** @type {string} */ kind) => kind === TELL.FILLED || kind === TELL.FAILED;
    stage.onMessage((content) => {
      if (!done(content.kind)) return;
      busy = false;
      stage.redraw(); // and ask again, if something has changed since
    });
    kernel = new Kernel(stage, handlers, () => {
      const talk = /** @type {Kernel<EditingExplorerTraits>} */ (kernel);
      if (talk?.gone) note.textContent = "no kernel: run this cell";
      else if (!talk?.waiting) note.textContent = error;
      else if (!talk.silent) note.textContent = "";
      else note.textContent = "waiting for the kernel, which is busy or gone";
    });
    kernel.ask(ASK.HELLO);
  } else note.textContent = "completions that were made before: painting needs a kernel";

  stage.paints(["chosen", "area", "label", "percent", "noise", "mask", "row", "column"], (full) => {
    want();
    const first = chosen() * size;
    const marked = mask();
    paintImage(original.data, w, 0, 0, picture, chosen(), (p) => fromByte(images[p]));
    original.put();
    const text = sentence();
    canvas.frame(full, (c) => {
      const { left, top, right, bottom } = canvas.box;
      c.imageSmoothingEnabled = false;
      c.drawImage(original.canvas, left, top, right - left, bottom - top);
      paintMask(c, marked);
      if (!alone) cross(c);
      c.strokeStyle = stage.theme.ink;
      c.lineWidth = 1;
      c.strokeRect(left - 0.5, top - 0.5, right - left + 1, bottom - top + 1);
    });
    const prepared = made();
    const own = drawnFor === key() || (asked === key() && drawnFor === asked);
    const shown = prepared ?? (own ? drawn : null);
    result.data.fill(0);
    for (let k = 0; k < answers; k++) {
      const left = (k % columns) * (w + GAP);
      const top = Math.floor(k / columns) * (h + GAP);
      const value = (/** @type {number} */ p) => {
        if (shown) return fromByte(shown[k * size + p]);
        return marked[p % (h * w)] ? -0.5 : fromByte(images[first + p]);
      };
      paintImage(result.data, wide, left, top, picture, 0, value);
    }
    result.put();
    const done = prepared || (own && at === 0);
    const state = done ? "completed" : own ? `on the way, at t = ${at}` : "not yet completed";
    say(`${text}: ${state}`);
    canvas.describe(`The picture, with what is to be redrawn in color. ${text}`);
    result.describe(`${answers} completions, ${state}. ${text}`);
  });

  /**
   * Colors the pixels that are to be redrawn.
   * @param {Context} c
   * @param {Uint8Array} marked
   */
  function paintMask(c, marked) {
    c.fillStyle = stage.theme.curves[1];
    c.globalAlpha = 0.45;
    for (let y = 0; y < h; y++) {
      for (let x = 0; x < w; x++) {
        if (!marked[y * w + x]) continue;
        let end = x;
        while (end < w && marked[y * w + end]) end++;
        const [from, to] = [canvas.px(x), canvas.px(end)];
        c.fillRect(from, canvas.py(y), to - from, canvas.py(y + 1) - canvas.py(y));
        x = end;
      }
    }
    c.globalAlpha = 1;
  }
  /**
   * Marks the place of the sliders.
   * @param {Context} c
   */
  function cross(c) {
    const [x, y] = [canvas.px(column() + 0.5), canvas.py(row() + 0.5)];
    for (const [width, color] of /** @type {const} */ ([
      [4, "#000000"],
      [1.5, "#ffffff"],
    ])) {
      c.lineWidth = width;
      c.strokeStyle = color;
      canvas.segment(c, x - 6, y, x + 6, y);
      canvas.segment(c, x, y - 6, x, y + 6);
    }
  }
  return () => stage.end();
}

export default { render };
