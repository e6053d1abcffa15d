// Charts: axes, curves, dots and labels on a canvas, in the colors of the theme.

/** @import { Numbers, Theme, Tick } from "./types" */

import { clamp, short, ticks } from "./numbers.js";
import { contextOf, describe, element } from "./pixels.js";

export const DASHES = [[], [7, 4], [2, 3], [9, 3, 2, 3], [4, 2]];
export const FONT = "12px system-ui, sans-serif";

/** @typedef {CanvasRenderingContext2D} Context */

/**
 * What charts need of the stage that they stand on.
 * @typedef {object} Ground
 * @property {HTMLElement} root
 * @property {Theme} theme
 * @property {(canvas: HTMLCanvasElement, caption: string, place: HTMLElement) => void} captioned
 */

/**
 * @typedef {object} ChartOptions
 * @property {number} width on the screen
 * @property {number} height
 * @property {number[]} x the values at the left and right end
 * @property {number[]} y the values at the bottom and top end
 * @property {string} [xLabel]
 * @property {string} [yLabel]
 * @property {string} [caption]
 * @property {HTMLElement} [place]
 * @property {Tick[]} [xTicks]
 * @property {Tick[]} [yTicks]
 * @property {number[]} [margins] top, right, bottom, left
 */

/**
 * Axes with curves. `background(context)` paints what does not move, once, into a picture that each
 * frame begins with; call `invalidate()` when that picture no longer holds.
 */
export class Chart {
  /**
   * @param {Ground} stage
   * @param {ChartOptions} options
   */
  constructor(stage, options) {
    this.stage = stage;
    this.width = options.width;
    this.height = options.height;
    this.x = options.x;
    this.y = options.y;
    this.xLabel = options.xLabel ?? "";
    this.yLabel = options.yLabel ?? "";
    this.xTicks = options.xTicks;
    this.yTicks = options.yTicks;
    this.margins = options.margins ?? [10, 18, 34, 46];
    this.canvas = element("canvas", { role: "img", class: "tx-chart" });
    this.canvas.style.width = `${options.width}px`;
    stage.captioned(this.canvas, options.caption ?? "", options.place ?? stage.root);
    this.behind = element("canvas");
    this.valid = false; // whether `behind` holds
    /** @type {(context: Context) => void} */
    this.background = () => {};
  }

  /** @param {string} text */
  describe(text) {
    describe(this.canvas, text);
  }

  /** The background no longer holds. */
  invalidate() {
    this.valid = false;
  }

  /** The axes in pixels of the screen, from the chart's upper left corner. */
  get box() {
    const [top, right, bottom, left] = this.margins;
    return { left, top, right: this.width - right, bottom: this.height - bottom };
  }

  /**
   * Where the value `x` is, in pixels from the left.
   * @param {number} x
   */
  px(x) {
    const { left, right } = this.box;
    return left + ((x - this.x[0]) / (this.x[1] - this.x[0])) * (right - left);
  }

  /**
   * Where the value `y` is, in pixels from the top.
   * @param {number} y
   */
  py(y) {
    const { top, bottom } = this.box;
    return bottom - ((y - this.y[0]) / (this.y[1] - this.y[0])) * (bottom - top);
  }

  /**
   * Paints a frame: the background, then `draw(context)` over it.
   * @param {boolean} full whether the background is to be painted anew as well
   * @param {(context: Context) => void} [draw]
   */
  frame(full, draw) {
    const sharp = window.devicePixelRatio || 1;
    const [w, h] = [Math.round(this.width * sharp), Math.round(this.height * sharp)];
    if (full || !this.valid || this.behind.width !== w) {
      this.behind.width = this.canvas.width = w;
      this.behind.height = this.canvas.height = h;
      const context = contextOf(this.behind);
      context.setTransform(sharp, 0, 0, sharp, 0, 0);
      this.axes(context);
      this.background(context);
      this.valid = true;
    }
    const context = contextOf(this.canvas);
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.drawImage(this.behind, 0, 0);
    context.setTransform(sharp, 0, 0, sharp, 0, 0);
    draw?.(context);
  }

  /** @param {Context} context */
  axes(context) {
    const { theme } = this.stage;
    const { left, right, top, bottom } = this.box;
    context.fillStyle = theme.paper;
    context.fillRect(0, 0, this.width, this.height);
    context.font = FONT;
    context.lineWidth = 1;
    const xs = this.xTicks ?? ticks(this.x[0], this.x[1]);
    const ys = this.yTicks ?? ticks(this.y[0], this.y[1], 4);
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

  /**
   * A straight line, in pixels.
   * @param {Context} context
   * @param {number} x0
   * @param {number} y0
   * @param {number} x1
   * @param {number} y1
   */
  segment(context, x0, y0, x1, y1) {
    context.beginPath();
    context.moveTo(x0, y0);
    context.lineTo(x1, y1);
    context.stroke();
  }

  /**
   * A curve through (xs[i], ys[i]) in the palette's color and dash `which`, with gaps where ys is
   * not finite.
   * @param {Context} context
   * @param {Numbers} xs
   * @param {Numbers} ys
   * @param {number} [which]
   * @param {number} [width]
   */
  curve(context, xs, ys, which = 0, width = 2) {
    const { left, right, top, bottom } = this.box;
    context.save();
    context.beginPath();
    context.rect(left, top - 2, right - left, bottom - top + 4);
    context.clip();
    context.beginPath();
    let pen = false;
    for (let i = 0; i < ys.length; i++) {
      if (!Number.isFinite(ys[i])) {
        pen = false;
        continue;
      }
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

  /**
   * A text beside the point (x, y), kept inside the axes.
   * @param {Context} context
   * @param {string} text
   * @param {number} x
   * @param {number} y
   * @param {number} [which]
   * @param {{ dx?: number, dy?: number }} [shift] in pixels
   */
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

  /**
   * An upright line at `x`, to mark t.
   * @param {Context} context
   * @param {number} x
   */
  marker(context, x) {
    const { top, bottom } = this.box;
    context.strokeStyle = this.stage.theme.ink;
    context.lineWidth = 1.5;
    this.segment(context, this.px(x), top, this.px(x), bottom);
  }

  /**
   * A dot at (x, y) with an edge of ink.
   * @param {Context} context
   * @param {number} x
   * @param {number} y
   * @param {number} [which]
   * @param {number} [radius]
   */
  dot(context, x, y, which = 0, radius = 4.5) {
    context.beginPath();
    context.arc(this.px(x), this.py(clamp(y, this.y[0], this.y[1])), radius, 0, 2 * Math.PI);
    context.fillStyle = this.stage.theme.curves[which];
    context.fill();
    context.strokeStyle = this.stage.theme.ink;
    context.lineWidth = 1;
    context.stroke();
  }
}
