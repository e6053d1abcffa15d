// Pictures of sharp pixels: into RGBA bytes, and into canvases.

/** @import { Numbers } from "./types" */

import { GRAYS_PER_UNIT } from "./wire.js";

/**
 * An element of the page.
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} name
 * @param {Record<string, string | number>} [attributes]
 * @param {string} [text]
 */
export function element(name, attributes = {}, text = "") {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, String(value));
  if (text) node.textContent = text;
  return node;
}

/**
 * Says what a canvas shows, to those who cannot see it.
 * @param {HTMLCanvasElement} canvas
 * @param {string} text
 */
export function describe(canvas, text) {
  if (canvas.getAttribute("aria-label") !== text) canvas.setAttribute("aria-label", text);
}

/**
 * What a canvas is painted with.
 * @param {HTMLCanvasElement} canvas
 */
export function contextOf(canvas) {
  return /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
}

/**
 * A picture of sharp pixels in memory, for charts to draw enlarged.
 * @param {number} width
 * @param {number} height
 */
export function offscreen(width, height) {
  const canvas = element("canvas", { width, height });
  const context = contextOf(canvas);
  let image = context.createImageData(width, height);
  return {
    canvas,
    get data() {
      return image.data;
    },
    /** @param {number} w @param {number} h */
    resize(w, h) {
      if (canvas.width === w && canvas.height === h) return;
      canvas.width = w;
      canvas.height = h;
      image = context.createImageData(w, h);
    },
    put: () => context.putImageData(image, 0, 0),
  };
}

/**
 * The color of `share` in [0, 1], from dark blue to light yellow, as RGBA at `data[at]`. Its
 * lightness rises as well, so it can be read without colors.
 * @param {Uint8ClampedArray | number[]} data
 * @param {number} at
 * @param {number} share
 */
export function ramp(data, at, share) {
  data[at] = 10 + 245 * share;
  data[at + 1] = 30 + 204 * share;
  data[at + 2] = 90 - 20 * share;
  data[at + 3] = 255;
}

/**
 * Paints image `index` of planes (N, C, H, W), whose values are `value(position)` in [-1, 1], into
 * RGBA pixels `width` wide with its corner at (left, top). Uint8ClampedArray clamps and rounds.
 * @param {Uint8ClampedArray} data
 * @param {number} width
 * @param {number} left
 * @param {number} top
 * @param {Numbers} shape channels, height and width of an image
 * @param {number} index
 * @param {(position: number) => number} value
 */
export function paintImage(data, width, left, top, shape, index, value) {
  const [channels, h, w] = [shape[0], shape[1], shape[2]];
  const plane = h * w;
  const start = index * channels * plane;
  for (let y = 0; y < h; y++) {
    for (let x = 0; x < w; x++) {
      const at = 4 * ((top + y) * width + left + x);
      const p = start + y * w + x;
      if (channels === 1) {
        const gray = (value(p) + 1) * GRAYS_PER_UNIT;
        data[at] = gray;
        data[at + 1] = gray;
        data[at + 2] = gray;
      } else {
        for (let c = 0; c < 3; c++) data[at + c] = (value(p + c * plane) + 1) * GRAYS_PER_UNIT;
      }
      data[at + 3] = 255;
    }
  }
}
