// A widget's view: its controls, canvases and charts, and one lifetime for everything that listens.

/** @import { Message, Name, NameOf, Theme, View } from "./types" */
/** @import { ChartOptions } from "./chart.js" */

import { Chart } from "./chart.js";
import { short } from "./numbers.js";
import { contextOf, describe, element } from "./pixels.js";

const PALETTES = {
  // Each stands out from its ground by 4.5 : 1 or more; curves differ in their dashes as well.
  light: ["#0063a3", "#ad4500", "#00714f", "#98407a", "#5c5c00"],
  dark: ["#6cb8ff", "#ffa366", "#4fd6a8", "#f2a4d2", "#d8d060"],
};
const SAVE_AFTER = 100; // ms between the last change and telling the kernel

/** Whether the reader asked for less motion. */
export const reducedMotion = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

/**
 * A view of a widget: builds its parts, redraws when a value changes, and ends without a trace.
 * @template T the widget's traits, by name
 */
export class Stage {
  /**
   * @param {View<T>} view
   * @param {string} title
   */
  constructor({ model, el }, title) {
    this.model = model;
    this.lifetime = new AbortController();
    this.root = element("div", { class: "tx", role: "group", "aria-label": title });
    this.controls = element("div", { class: "tx-controls" });
    this.root.append(this.controls);
    el.append(this.root);
    /** @type {((full: boolean) => void)[]} */
    this.painters = [];
    /** @type {((full: boolean) => void)[]} */
    this.refreshers = [];
    /** @type {(() => void)[]} */
    this.cleanups = [];
    this.frame = 0; // the animation frame that is asked for
    this.frames = 0; // how many were painted
    this.full = false; // whether the next frame begins from nothing
    /** @type {Theme | null} */
    this.colors = null;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.saving = undefined;
    /** What was set here and the kernel has not been told. @type {Map<Name<T>, any>} */
    this.unsaved = new Map();
    /** The names that `protect` looks after. @type {Set<Name<T>>} */
    this.protected = new Set();
    this.restoring = false;
    // JupyterLab would take the arrow keys, and letters for its shortcuts.
    this.listen(this.root, "keydown", (event) => {
      if (!event.ctrlKey && !event.metaKey) event.stopPropagation();
    });
    const restyle = () => {
      this.colors = null;
      this.redraw(true);
    };
    const themes = new MutationObserver(restyle);
    const options = { attributes: true, attributeFilter: ["data-jp-theme-name", "class", "style"] };
    themes.observe(document.body, options);
    this.cleanups.push(() => themes.disconnect());
    this.listen(matchMedia("(prefers-color-scheme: dark)"), "change", restyle);
    const sizes = new ResizeObserver(() => this.redraw(true));
    sizes.observe(this.root);
    this.cleanups.push(() => sizes.disconnect());
  }

  /**
   * @template {Name<T>} K
   * @param {K} name
   */
  get(name) {
    return this.model.get(name);
  }

  /**
   * Sets a value here and now; the kernel is told once it has settled.
   * @template {Name<T>} K
   * @param {K} name
   * @param {T[K]} value
   */
  set(name, value) {
    if (this.model.get(name) === value) return;
    this.protect(name);
    this.unsaved.set(name, value);
    this.model.set(name, value);
    clearTimeout(this.saving);
    this.saving = setTimeout(() => this.save(), SAVE_AFTER);
  }

  /**
   * Puts an unsaved value back where the kernel, which echoes what it is told, has set an older
   * one. Of two views of one model the one that sets last wins: each puts back once at most.
   * @param {Name<T>} name
   */
  protect(name) {
    if (this.protected.has(name)) return;
    this.protected.add(name);
    this.follow(name, () => {
      if (this.restoring || !this.unsaved.has(name)) return;
      this.restoring = true;
      try {
        this.model.set(name, this.unsaved.get(name));
      } finally {
        this.restoring = false;
      }
    });
  }

  /** Tells the kernel now what was set here. */
  save() {
    clearTimeout(this.saving);
    this.saving = undefined;
    this.unsaved.clear();
    this.model.save_changes();
  }

  /**
   * Calls `handler` on events until the view ends.
   * @template {keyof GlobalEventHandlersEventMap} E
   * @param {EventTarget} target
   * @param {E} type
   * @param {(event: GlobalEventHandlersEventMap[E]) => void} handler
   */
  listen(target, type, handler) {
    const { signal } = this.lifetime;
    target.addEventListener(type, /** @type {EventListener} */ (handler), { signal });
  }

  /**
   * Calls `handler` when the value of `name` changes, from here or from the kernel.
   * @param {Name<T>} name
   * @param {() => void} handler
   */
  follow(name, handler) {
    this.model.on(`change:${name}`, handler);
    this.cleanups.push(() => this.model.off(`change:${name}`, handler));
  }

  /**
   * Calls `handler` for each message of the kernel.
   * @param {(content: Message, buffers: DataView[]) => void} handler
   */
  onMessage(handler) {
    this.model.on("msg:custom", handler);
    this.cleanups.push(() => this.model.off("msg:custom", handler));
  }

  /**
   * What paints the view, and the values it depends on: one painting a frame, however many change.
   * The painter is told whether to begin from nothing, as after a change of theme or size.
   * @param {Name<T>[]} names
   * @param {(full: boolean) => void} painter
   */
  paints(names, painter) {
    this.painters.push(painter);
    for (const name of names) this.follow(name, () => this.redraw());
    this.redraw();
  }

  /**
   * Calls `refresh` before each painting, ahead of what was there before: also ahead of sliders,
   * which ask for the text beside them.
   * @param {() => void} refresh
   */
  computesFirst(refresh) {
    this.refreshers.unshift(refresh);
  }

  redraw(full = false) {
    this.full ||= full;
    this.frame ||= requestAnimationFrame(() => this.paint());
  }

  paint() {
    this.frame = 0;
    if (this.lifetime.signal.aborted) return;
    const { full } = this;
    this.full = false;
    for (const refresh of this.refreshers) refresh(full);
    for (const painter of this.painters) painter(full);
    this.frames += 1;
    this.root.dataset.frames = String(this.frames); // for those who measure
  }

  /** A row for controls below the first. */
  row() {
    const row = element("div", { class: "tx-controls" });
    this.root.append(row);
    return row;
  }

  /**
   * @param {string} text
   * @param {HTMLElement} control
   * @param {HTMLElement} [place]
   */
  labeled(text, control, place = this.controls) {
    const label = element("label", { class: "tx-label" });
    label.append(element("span", {}, text), control);
    place.append(label);
    return label;
  }

  /**
   * A native slider for the value `name`.
   * @param {object} options
   * @param {string} options.label
   * @param {NameOf<T, number>} options.name
   * @param {number} options.min
   * @param {number} options.max
   * @param {number} [options.step]
   * @param {(value: number) => string} [options.text] what stands beside it
   * @param {(value: number) => string} [options.spoken] what a screen reader reads; by default text
   * @param {(position: number) => number} [options.toValue] from a position of the slider to a value
   * @param {(value: number) => number} [options.toPosition] and back, where they are not the same
   * @param {HTMLElement} [options.place]
   * @param {boolean} [options.wide]
   */
  slider(options) {
    const { label, name, min, max, step = 1, text = short, place, wide = false } = options;
    const { spoken = text, toValue = (x) => x, toPosition = (x) => x } = options;
    const input = element("input", { type: "range", min, max, step });
    if (wide) input.classList.add("tx-wide");
    const output = element("output", { class: "tx-value", "aria-hidden": "true" });
    this.labeled(label, input, place).append(output);
    this.listen(input, "input", () => this.setNumber(name, toValue(+input.value)));
    this.refreshers.push(() => {
      const value = this.getNumber(name);
      input.value = String(toPosition(value));
      output.textContent = text(value);
      input.setAttribute("aria-valuetext", spoken(value));
    });
    this.follow(name, () => this.redraw());
    return input;
  }

  /**
   * @param {NameOf<T, number>} name
   * @returns {number}
   */
  getNumber(name) {
    return /** @type {any} */ (this.get(name));
  }

  /**
   * @param {NameOf<T, number>} name
   * @param {number} value
   */
  setNumber(name, value) {
    this.set(name, /** @type {any} */ (value));
  }

  /**
   * A native list of choices for the value `name`.
   * @template {Name<T>} K
   * @param {object} options
   * @param {string} options.label
   * @param {K} options.name
   * @param {readonly (readonly [T[K], string])[]} options.options values, and what stands for them
   * @param {HTMLElement} [options.place]
   */
  choice({ label, name, options, place }) {
    const select = element("select");
    select.append(...options.map(([, text]) => element("option", {}, text)));
    this.labeled(label, select, place);
    this.listen(select, "change", () => this.set(name, options[select.selectedIndex][0]));
    this.refreshers.push(() => {
      select.selectedIndex = options.findIndex(([value]) => value === this.get(name));
    });
    this.follow(name, () => this.redraw());
    return select;
  }

  /**
   * A checkbox for the value `name`.
   * @param {object} options
   * @param {string} options.label
   * @param {NameOf<T, boolean>} options.name
   * @param {HTMLElement} [options.place]
   */
  toggle({ label, name, place = this.controls }) {
    const input = element("input", { type: "checkbox" });
    const box = element("label", { class: "tx-label" });
    box.append(input, element("span", {}, label));
    place.append(box);
    this.listen(input, "change", () => this.set(name, /** @type {any} */ (input.checked)));
    this.refreshers.push(() => {
      input.checked = /** @type {any} */ (this.get(name));
    });
    this.follow(name, () => this.redraw());
    return input;
  }

  /**
   * @param {string} text
   * @param {() => void} press
   * @param {HTMLElement} [place]
   */
  button(text, press, place = this.controls) {
    const button = element("button", { type: "button", class: "tx-button" }, text);
    this.listen(button, "click", press);
    place.append(button);
    return button;
  }

  /**
   * Play and pause: moves `name` from `low` to `high` in `seconds`, and begins again after the end.
   * With less motion asked for it goes in ten leaps, one a second. Whoever moves the value by hand
   * while it plays takes over: it stops.
   * @param {object} options
   * @param {NameOf<T, number>} options.name
   * @param {() => [number, number]} options.range gives [low, high]
   * @param {number} [options.seconds]
   * @param {HTMLElement} [options.place]
   * @param {boolean} [options.backwards] from `high` to `low`
   */
  play({ name, range, seconds = 8, place, backwards = false }) {
    let since = 0;
    let from = 0;
    let shown = 0;
    let playing = false;
    /** @type {number | ReturnType<typeof setTimeout>} */
    let timer = 0;
    const stop = () => {
      cancelAnimationFrame(/** @type {number} */ (timer));
      clearTimeout(timer);
      playing = false;
      button.textContent = "Play";
    };
    const schedule = () => {
      timer = reducedMotion()
        ? setTimeout(() => step(performance.now()), 1000)
        : requestAnimationFrame(step);
    };
    /** @param {number} now */
    const step = (now) => {
      if (this.getNumber(name) !== shown) return stop();
      const [low, high] = range();
      let share = from + (now - since) / 1000 / (reducedMotion() ? 10 : seconds);
      if (reducedMotion()) share = Math.round(share * 10) / 10;
      share = Math.min(1, share);
      const position = backwards ? 1 - share : share;
      shown = Math.round(low + position * (high - low));
      this.setNumber(name, shown);
      if (share >= 1) stop();
      else schedule();
    };
    const press = () => {
      if (playing) return stop();
      const [low, high] = range();
      from = high > low ? (this.getNumber(name) - low) / (high - low) : 0;
      if (backwards) from = 1 - from;
      if (from >= 1) from = 0;
      shown = this.getNumber(name);
      since = performance.now();
      playing = true;
      button.textContent = "Pause";
      schedule();
    };
    const button = this.button("Play", press, place);
    this.cleanups.push(stop);
    return button;
  }

  /**
   * The wide slider of the timestep, and beside it the button that plays it; options as for both.
   * @param {Omit<Parameters<Stage<T>["slider"]>[0], "label" | "min" | "max"> &
   *   Omit<Parameters<Stage<T>["play"]>[0], "name" | "place">} options
   */
  timestep({ range, seconds, backwards, ...options }) {
    const [min, max] = range();
    const shown = { label: "timestep t", min, max, wide: true, text: String, ...options };
    const { name, place } = options;
    const slider = this.slider(shown);
    return { slider, button: this.play({ name, range, seconds, backwards, place }) };
  }

  /** A line of text below what is drawn so far; returns the function that sets it. */
  line(attributes = {}) {
    const line = element("p", { class: "tx-line", ...attributes });
    this.root.append(line);
    /** @param {string} text */
    return (text) => {
      if (line.textContent !== text) line.textContent = text;
    };
  }

  /** A box in which canvases stand side by side, and wrap where there is no room. */
  panels() {
    const box = element("div", { class: "tx-panels" });
    this.root.append(box);
    return box;
  }

  /**
   * A canvas of `width` x `height` pixels, each shown as `scale` on the screen, sharp-edged.
   * @param {object} options
   * @param {number} options.width
   * @param {number} options.height
   * @param {number} [options.scale]
   * @param {HTMLElement} [options.place]
   * @param {string} [options.caption]
   */
  pixels({ width, height, scale = 1, place = this.root, caption = "" }) {
    const canvas = element("canvas", { role: "img", class: "tx-pixels", width, height });
    canvas.style.width = `${width * scale}px`;
    this.captioned(canvas, caption, place);
    const context = contextOf(canvas);
    const image = context.createImageData(width, height);
    return {
      width,
      data: image.data,
      put: () => context.putImageData(image, 0, 0),
      /** @param {string} text */
      describe: (text) => describe(canvas, text),
    };
  }

  /**
   * A chart of `width` x `height` on the screen; see `Chart`.
   * @param {ChartOptions} options
   */
  chart(options) {
    return new Chart(this, options);
  }

  /**
   * A chart with room for a picture of `columns` x `rows` pixels, and nothing around it.
   * @param {{columns: number, rows: number, scale: number, place: HTMLElement, caption: string}} about
   */
  pictureChart({ columns, rows, scale, place, caption }) {
    return this.chart({
      width: columns * scale + 2,
      height: rows * scale + 2,
      place,
      x: [0, columns],
      y: [rows, 0],
      xTicks: [],
      yTicks: [],
      margins: [1, 1, 1, 1],
      caption,
    });
  }

  /**
   * @param {HTMLCanvasElement} canvas
   * @param {string} caption
   * @param {HTMLElement} place
   */
  captioned(canvas, caption, place) {
    const figure = element("figure", { class: "tx-figure" });
    if (caption) figure.append(element("figcaption", {}, caption));
    figure.append(canvas);
    place.append(figure);
  }

  /**
   * The colors of the theme: ink, paper, faint lines, and a palette for curves.
   * @returns {Theme}
   */
  get theme() {
    if (!this.colors) {
      const style = getComputedStyle(this.root);
      const [r, g, b] = (style.backgroundColor.match(/[\d.]+/g) ?? []).map(Number);
      const dark = 0.2126 * r + 0.7152 * g + 0.0722 * b < 128;
      this.colors = {
        dark,
        ink: style.color,
        paper: style.backgroundColor,
        faint: dark ? "#4a4a4a" : "#d4d4d4",
        curves: PALETTES[dark ? "dark" : "light"],
      };
    }
    return this.colors;
  }

  /** Ends the view: nothing listens, ticks or observes any longer. */
  end() {
    this.lifetime.abort();
    cancelAnimationFrame(this.frame);
    if (this.saving !== undefined) this.save();
    for (const cleanup of this.cleanups) cleanup();
    this.root.remove();
  }
}
