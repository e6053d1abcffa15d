// What all explorers share: controls, canvases, curves, and one life for everything that listens.
// Put in front of each explorer's own script, so that a widget is one module without imports.

const PALETTES = {
  // Each stands out from its ground by 4.5 : 1 or more; curves differ in their dashes as well.
  light: ["#0063a3", "#ad4500", "#00714f", "#98407a", "#5c5c00"],
  dark: ["#6cb8ff", "#ffa366", "#4fd6a8", "#f2a4d2", "#d8d060"],
};
const DASHES = [[], [7, 4], [2, 3], [9, 3, 2, 3], [4, 2]];
const FONT = "12px system-ui, sans-serif";
const SAVE_AFTER = 100; // ms between the last change and telling the kernel

/** The bytes of a trait as a typed array of their own: what arrives need not be aligned. */
function numbers(model, name, Type) {
  const { buffer, byteOffset, byteLength } = model.get(name);
  return new Type(buffer.slice(byteOffset, byteOffset + byteLength));
}

/** Whether the reader asked for less motion. */
const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

/** A number as people write it: 1000, 0.02, 1.0e-4. */
function short(value, digits = 3) {
  if (value === 0 || !Number.isFinite(value)) return String(value);
  const size = Math.abs(value);
  return size >= 1e5 || size < 1e-3 ? value.toExponential(1) : String(+value.toPrecision(digits));
}

/** A view of a widget: builds its parts, redraws when a value changes, and ends without a trace. */
class Stage {
  constructor({ model, el }, title) {
    this.model = model;
    this.life = new AbortController();
    this.root = element("div", { class: "tx", role: "group", "aria-label": title });
    this.controls = element("div", { class: "tx-controls" });
    this.root.append(this.controls);
    el.append(this.root);
    this.painters = [];
    this.refreshers = [];
    this.endings = [];
    this.frame = 0;
    this.frames = 0;
    this.saving = 0;
    this.unsaved = new Map();  // name: what was set here and the kernel has not been told
    this.kept = new Set();     // names that `keep` looks after
    this.keeping = false;
    // JupyterLab would take the arrow keys, and letters for its shortcuts.
    this.listen(this.root, "keydown", (event) => {
      if (!event.ctrlKey && !event.metaKey) event.stopPropagation();
    });
    const restyle = () => { this.colors = null; this.redraw(true); };
    const themes = new MutationObserver(restyle);
    const options = { attributes: true, attributeFilter: ["data-jp-theme-name", "class", "style"] };
    themes.observe(document.body, options);
    this.endings.push(() => themes.disconnect());
    this.listen(matchMedia("(prefers-color-scheme: dark)"), "change", restyle);
    const sizes = new ResizeObserver(() => this.redraw(true));
    sizes.observe(this.root);
    this.endings.push(() => sizes.disconnect());
  }

  get(name) {
    return this.model.get(name);
  }

  /** Sets a value here and now; the kernel hears of it once it has settled. */
  set(name, value) {
    if (this.model.get(name) === value) return;
    if (!this.kept.has(name)) this.keep(name);
    this.unsaved.set(name, value);
    this.model.set(name, value);
    clearTimeout(this.saving);
    this.saving = setTimeout(() => this.save(), SAVE_AFTER);
  }

  /**
   * Puts an unsaved value back where the kernel, which echoes what it is told, has set an older one.
   * Of two views of one model the one that sets last has its way: each puts back once at most.
   */
  keep(name) {
    this.kept.add(name);
    this.follow(name, () => {
      if (this.keeping || !this.unsaved.has(name)) return;
      this.keeping = true;
      try {
        this.model.set(name, this.unsaved.get(name));
      } finally {
        this.keeping = false;
      }
    });
  }

  save() {
    this.saving = 0;
    this.unsaved.clear();
    this.model.save_changes();
  }

  listen(target, type, handler, options = {}) {
    target.addEventListener(type, handler, { ...options, signal: this.life.signal });
  }

  /** Calls `handler` when the value of `name` changes, from here or from the kernel. */
  follow(name, handler) {
    this.model.on(`change:${name}`, handler);
    this.endings.push(() => this.model.off(`change:${name}`, handler));
  }

  /** Calls `handler(content, buffers)` for each message of the kernel. */
  hear(handler) {
    this.model.on("msg:custom", handler);
    this.endings.push(() => this.model.off("msg:custom", handler));
  }

  /** What paints the view, and the values it depends on: one painting a frame, however many change. */
  paints(names, painter) {
    this.painters.push(painter);
    for (const name of names) this.follow(name, () => this.redraw());
    this.redraw();
  }

  redraw(anew = false) {
    this.anew ||= anew;
    this.frame ||= requestAnimationFrame(() => this.paint());
  }

  paint() {
    this.frame = 0;
    if (this.life.signal.aborted) return;
    const { anew } = this;
    this.anew = false;
    for (const refresh of this.refreshers) refresh(anew);
    for (const painter of this.painters) painter(anew);
    this.root.dataset.frames = ++this.frames; // for those who measure
  }

  /** A row for controls below the first. */
  row() {
    const row = element("div", { class: "tx-controls" });
    this.root.append(row);
    return row;
  }

  labelled(text, control, place = this.controls) {
    const label = element("label", { class: "tx-label" });
    label.append(element("span", {}, text), control);
    place.append(label);
    return label;
  }

  /**
   * A native slider for the value `name`. `says(value)` is what stands beside it, and what a
   * screen reader reads, unless `reads(value)` is given. `toValue` and `toPlace` map its places
   * to values where they are not the same (a logarithmic slider).
   */
  slider({ label, name, min, max, step = 1, says = short, reads = says, place,
           toValue = (x) => x, toPlace = (x) => x, wide = false }) {
    const input = element("input", { type: "range", min, max, step });
    if (wide) input.classList.add("tx-wide");
    const output = element("output", { class: "tx-value", "aria-hidden": "true" });
    this.labelled(label, input, place).append(output);
    this.listen(input, "input", () => this.set(name, toValue(+input.value)));
    this.refreshers.push(() => {
      const value = this.get(name);
      input.value = toPlace(value);
      output.textContent = says(value);
      input.setAttribute("aria-valuetext", reads(value));
    });
    this.follow(name, () => this.redraw());
    return input;
  }

  /** A native list of choices for the value `name`; `options` are texts or [value, text]. */
  choice({ label, name, options, place }) {
    const select = element("select");
    const pairs = options.map((option) => (Array.isArray(option) ? option : [option, option]));
    select.append(...pairs.map(([, text]) => element("option", {}, String(text))));
    this.labelled(label, select, place);
    this.listen(select, "change", () => this.set(name, pairs[select.selectedIndex][0]));
    this.refreshers.push(() => {
      select.selectedIndex = pairs.findIndex(([value]) => value === this.get(name));
    });
    this.follow(name, () => this.redraw());
    return select;
  }

  /** A checkbox for the value `name`. */
  toggle({ label, name, place = this.controls }) {
    const input = element("input", { type: "checkbox" });
    const box = element("label", { class: "tx-label" });
    box.append(input, element("span", {}, label));
    place.append(box);
    this.listen(input, "change", () => this.set(name, input.checked));
    this.refreshers.push(() => { input.checked = this.get(name); });
    this.follow(name, () => this.redraw());
    return input;
  }

  button(text, press, place = this.controls) {
    const button = element("button", { type: "button", class: "tx-button" }, text);
    this.listen(button, "click", press);
    place.append(button);
    return button;
  }

  /**
   * Play and pause: moves `name` from `low` to `high` in `seconds`, again from `low` at the end.
   * `range()` gives [low, high]. With less motion asked for it goes in ten leaps, one a second.
   * Whoever moves the value by hand while it plays takes over: it stops.
   */
  play({ name, range, seconds = 8, place, backwards = false }) {
    let since = 0, from = 0, timer = 0, placed = 0;
    const stop = () => {
      cancelAnimationFrame(timer);
      clearTimeout(timer);
      timer = 0;
      button.textContent = "Play";
    };
    const next = (step) => (calm() ? setTimeout(() => step(performance.now()), 1000)
      : requestAnimationFrame(step));
    const step = (now) => {
      if (this.get(name) !== placed) return stop();
      const [low, high] = range();
      let share = from + (now - since) / 1000 / (calm() ? 10 : seconds);
      if (calm()) share = Math.round(share * 10) / 10;
      share = Math.min(1, share);
      const place = backwards ? 1 - share : share;
      placed = Math.round(low + place * (high - low));
      this.set(name, placed);
      if (share >= 1) stop();
      else timer = next(step);
    };
    const button = this.button("Play", () => {
      if (timer) return stop();
      const [low, high] = range();
      from = high > low ? (this.get(name) - low) / (high - low) : 0;
      if (backwards) from = 1 - from;
      if (from >= 1) from = 0;
      placed = this.get(name);
      since = performance.now();
      button.textContent = "Pause";
      timer = next(step);
    }, place);
    this.endings.push(stop);
    return button;
  }

  /** A line of text below what is drawn so far; returns the function that sets it. */
  line() {
    const line = element("p", { class: "tx-line" });
    this.root.append(line);
    return (text) => { if (line.textContent !== text) line.textContent = text; };
  }

  /** A box in which canvases stand side by side, and wrap where there is no room. */
  panels() {
    const box = element("div", { class: "tx-panels" });
    this.root.append(box);
    return box;
  }

  /** A canvas of `width` x `height` pixels, each shown as `scale` on the screen, sharp-edged. */
  pixels({ width, height, scale = 1, place = this.root, caption }) {
    const canvas = element("canvas", { role: "img", class: "tx-pixels", width, height });
    canvas.style.width = `${width * scale}px`;
    this.captioned(canvas, caption, place);
    const context = canvas.getContext("2d");
    const image = context.createImageData(width, height);
    return {
      canvas, context, width, height, data: image.data,
      put: () => context.putImageData(image, 0, 0),
      describe: (text) => describe(canvas, text),
    };
  }

  /** A chart of `width` x `height` on the screen; see `Chart`. */
  chart(options) {
    return new Chart(this, options);
  }

  captioned(canvas, caption, place) {
    const figure = element("figure", { class: "tx-figure" });
    if (caption) figure.append(element("figcaption", {}, caption));
    figure.append(canvas);
    place.append(figure);
  }

  /** The colors of the theme: ink, paper, faint lines, and a palette for curves. */
  get theme() {
    if (!this.colors) {
      const style = getComputedStyle(this.root);
      const [r, g, b] = style.backgroundColor.match(/[\d.]+/g).map(Number);
      const dark = 0.2126 * r + 0.7152 * g + 0.0722 * b < 128;
      this.colors = {
        dark, ink: style.color, paper: style.backgroundColor,
        faint: dark ? "#4a4a4a" : "#d4d4d4",
        curves: PALETTES[dark ? "dark" : "light"],
      };
    }
    return this.colors;
  }

  /** Ends the view: nothing listens, ticks or observes any longer. */
  end() {
    this.life.abort();
    cancelAnimationFrame(this.frame);
    if (this.saving) { clearTimeout(this.saving); this.save(); }
    for (const ending of this.endings) ending();
    this.root.remove();
  }
}

function element(name, attributes = {}, text = "") {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text) node.textContent = text;
  return node;
}

function describe(canvas, text) {
  if (canvas.getAttribute("aria-label") !== text) canvas.setAttribute("aria-label", text);
}

/**
 * Axes with curves. `still(draw)` paints what does not move once, into a picture that each frame
 * begins with; call `fresh()` when that picture no longer holds.
 */
class Chart {
  constructor(stage, { width, height, x, y, xLabel = "", yLabel = "", caption, place = stage.root,
                       xTicks, yTicks, margins = [10, 18, 34, 46] }) {
    Object.assign(this, { stage, width, height, x, y, xLabel, yLabel, xTicks, yTicks, margins });
    this.canvas = element("canvas", { role: "img", class: "tx-chart" });
    this.canvas.style.width = `${width}px`;
    stage.captioned(this.canvas, caption, place);
    this.behind = element("canvas");
    this.holds = false;
    this.still = () => {};
  }

  describe(text) {
    describe(this.canvas, text);
  }

  /** The still picture no longer holds. */
  fresh() {
    this.holds = false;
  }

  get box() {
    const [top, right, bottom, left] = this.margins;
    return { left, top, right: this.width - right, bottom: this.height - bottom };
  }

  /** Where the value `x` lies, in pixels from the left. */
  px(x) {
    const { left, right } = this.box;
    return left + ((x - this.x[0]) / (this.x[1] - this.x[0])) * (right - left);
  }

  py(y) {
    const { top, bottom } = this.box;
    return bottom - ((y - this.y[0]) / (this.y[1] - this.y[0])) * (bottom - top);
  }

  /** Begins a frame: what is still, then `draw(context)`, clipped to nothing. */
  frame(anew, draw) {
    const sharp = window.devicePixelRatio || 1;
    const [w, h] = [Math.round(this.width * sharp), Math.round(this.height * sharp)];
    if (anew || !this.holds || this.behind.width !== w) {
      this.behind.width = this.canvas.width = w;
      this.behind.height = this.canvas.height = h;
      const context = this.behind.getContext("2d");
      context.setTransform(sharp, 0, 0, sharp, 0, 0);
      this.axes(context);
      this.still(context);
      this.holds = true;
    }
    const context = this.canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.drawImage(this.behind, 0, 0);
    context.setTransform(sharp, 0, 0, sharp, 0, 0);
    draw?.(context);
  }

  axes(context) {
    const { theme } = this.stage, { left, right, top, bottom } = this.box;
    context.fillStyle = theme.paper;
    context.fillRect(0, 0, this.width, this.height);
    context.font = FONT;
    context.lineWidth = 1;
    const xs = this.xTicks ?? ticks(...this.x), ys = this.yTicks ?? ticks(...this.y, 4);
    context.strokeStyle = theme.faint;
    context.fillStyle = theme.ink;
    for (const tick of xs) {
      const [at, text] = Array.isArray(tick) ? tick : [tick, short(tick, 4)];
      this.segment(context, this.px(at), top, this.px(at), bottom);
      context.textAlign = "center";
      context.textBaseline = "top";
      context.fillText(text, this.px(at), bottom + 4);
    }
    for (const tick of ys) {
      const [at, text] = Array.isArray(tick) ? tick : [tick, short(tick, 4)];
      this.segment(context, left, this.py(at), right, this.py(at));
      context.textAlign = "right";
      context.textBaseline = "middle";
      context.fillText(text, left - 5, this.py(at));
    }
    context.textAlign = "center";
    context.textBaseline = "bottom";
    context.fillText(this.xLabel, (left + right) / 2, this.height - 1);
    context.textAlign = "left";
    context.textBaseline = "top";
    context.save();
    context.translate(2, (top + bottom) / 2);
    context.rotate(-Math.PI / 2);
    context.textAlign = "center";
    context.fillText(this.yLabel, 0, 0);
    context.restore();
  }

  segment(context, x0, y0, x1, y1) {
    context.beginPath();
    context.moveTo(x0, y0);
    context.lineTo(x1, y1);
    context.stroke();
  }

  /** A curve through (xs[i], ys[i]) in the palette's color and dash `which`; not finite: a gap. */
  curve(context, xs, ys, which = 0, { width = 2, count = ys.length } = {}) {
    const { left, right, top, bottom } = this.box;
    context.save();
    context.beginPath();
    context.rect(left, top - 2, right - left, bottom - top + 4);
    context.clip();
    context.beginPath();
    let pen = false;
    for (let i = 0; i < count; i++) {
      if (!Number.isFinite(ys[i])) { pen = false; continue; }
      const [x, y] = [this.px(xs[i]), this.py(ys[i])];
      if (pen) context.lineTo(x, y);
      else context.moveTo(x, y);
      pen = true;
    }
    context.strokeStyle = this.stage.theme.curves[which];
    context.setLineDash(DASHES[which]);
    context.lineWidth = width;
    context.stroke();
    context.restore();
  }

  /** A text beside the point (x, y), kept inside the axes. */
  label(context, text, x, y, which = 0, { dx = 6, dy = -6 } = {}) {
    const { left, right, top, bottom } = this.box;
    context.font = FONT;
    context.textAlign = "left";
    context.textBaseline = "middle";
    const wide = context.measureText(text).width;
    const px = clamp(this.px(x) + dx, left + 2, right - wide - 2);
    const py = clamp(this.py(y) + dy, top + 8, bottom - 8);
    context.fillStyle = this.stage.theme.paper;
    context.globalAlpha = 0.85;
    context.fillRect(px - 2, py - 8, wide + 4, 16);
    context.globalAlpha = 1;
    context.fillStyle = this.stage.theme.curves[which];
    context.fillText(text, px, py);
  }

  /** An upright line at `x`, as the marker of t. */
  marker(context, x) {
    const { top, bottom } = this.box;
    context.strokeStyle = this.stage.theme.ink;
    context.lineWidth = 1.5;
    this.segment(context, this.px(x), top, this.px(x), bottom);
  }

  /** A dot at (x, y) with an edge of ink. */
  dot(context, x, y, which = 0, radius = 4.5) {
    context.beginPath();
    context.arc(this.px(x), this.py(clamp(y, ...this.y)), radius, 0, 2 * Math.PI);
    context.fillStyle = this.stage.theme.curves[which];
    context.fill();
    context.strokeStyle = this.stage.theme.ink;
    context.lineWidth = 1;
    context.stroke();
  }
}

/** A picture of sharp pixels in memory, for charts to draw enlarged. */
function offscreen(width, height) {
  const canvas = element("canvas", { width, height }), context = canvas.getContext("2d");
  let image = context.createImageData(width, height);
  return {
    canvas,
    get data() { return image.data; },
    size(w, h) {
      if (canvas.width === w && canvas.height === h) return;
      canvas.width = w;
      canvas.height = h;
      image = context.createImageData(w, h);
    },
    put: () => context.putImageData(image, 0, 0),
  };
}

/** The color of `share` in [0, 1], from dark blue to light yellow: its lightness tells it too. */
function ramp(data, at, share) {
  data[at] = 10 + 245 * share;
  data[at + 1] = 30 + 204 * share;
  data[at + 2] = 90 - 20 * share;
  data[at + 3] = 255;
}

/** Round numbers from low to high, about `count` steps. */
function ticks(low, high, count = 5) {
  const rough = (high - low) / count, size = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * size).find((s) => s >= rough - 1e-12);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i++) found.push(i * step);
  return found;
}

/** Random numbers in [0, 1) from a seed (mulberry32), the same on every machine. */
function randomNumbers(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let r = Math.imul(state ^ (state >>> 15), 1 | state);
    r = (r + Math.imul(r ^ (r >>> 7), 61 | r)) ^ r;
    return ((r ^ (r >>> 14)) >>> 0) / 4294967296;
  };
}

/** `count` draws of N(0, 1) from a seed (Box and Muller 1958), float32. */
function normalNumbers(seed, count) {
  const uniform = randomNumbers(seed), drawn = new Float32Array(count);
  for (let i = 0; i < count; i += 2) {
    const radius = Math.sqrt(-2 * Math.log(1 - uniform())), angle = 2 * Math.PI * uniform();
    drawn[i] = radius * Math.cos(angle);
    if (i + 1 < count) drawn[i + 1] = radius * Math.sin(angle);
  }
  return drawn;
}

/**
 * Paints image `from` of planes (N, C, H, W), given by `value(index)` in [-1, 1], into RGBA pixels
 * `width` wide with its corner at (left, top). Uint8ClampedArray clamps and rounds.
 */
function paintImage(data, width, left, top, [channels, h, w], from, value) {
  const plane = h * w, start = from * channels * plane;
  for (let y = 0; y < h; y++) {
    for (let x = 0; x < w; x++) {
      const at = 4 * ((top + y) * width + left + x), p = start + y * w + x;
      if (channels === 1) {
        data[at] = data[at + 1] = data[at + 2] = (value(p) + 1) * 127.5;
      } else {
        for (let c = 0; c < 3; c++) data[at + c] = (value(p + c * plane) + 1) * 127.5;
      }
      data[at + 3] = 255;
    }
  }
}
