// Arithmetic that several explorers share; nothing here touches the page.

/** @import { ArrayType, Model, NameOf, Numbers } from "./types" */

import { GRAYS_PER_UNIT, INT16_MAX, INT16_MIN } from "./wire.js";

/**
 * The bytes of `view` as a typed array of their own: what arrives need not be aligned.
 * @template A
 * @param {DataView} view
 * @param {ArrayType<A>} Type
 */
export function copied(view, Type) {
  const { buffer, byteOffset, byteLength } = view;
  return new Type(buffer.slice(byteOffset, byteOffset + byteLength));
}

/**
 * The bytes of a trait as a typed array.
 * @template T, A
 * @param {Model<T>} model
 * @param {NameOf<T, DataView>} name
 * @param {ArrayType<A>} Type
 */
export function typedArray(model, name, Type) {
  return copied(/** @type {DataView} */ (model.get(name)), Type);
}

/**
 * @param {number} value
 * @param {number} low
 * @param {number} high
 */
export const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

/**
 * A value in [-1, 1] from its byte.
 * @param {number} byte
 */
export const fromByte = (byte) => byte / GRAYS_PER_UNIT - 1;

/**
 * A whole number as near to `value` as int16 can hold.
 * @param {number} value
 */
export const toInt16 = (value) => clamp(Math.round(value), INT16_MIN, INT16_MAX);

/**
 * A number as people write it: 1000, 0.02, 1.0e-4.
 * @param {number} value
 * @param {number} [digits]
 */
export function short(value, digits = 3) {
  if (value === 0 || !Number.isFinite(value)) return String(value);
  const size = Math.abs(value);
  return size >= 1e5 || size < 1e-3 ? value.toExponential(1) : String(+value.toPrecision(digits));
}

/**
 * Round numbers from low to high, about `count` steps.
 * @param {number} low
 * @param {number} high
 * @param {number} [count]
 */
export function ticks(low, high, count = 5) {
  const rough = (high - low) / count;
  const size = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5].map((m) => m * size).find((s) => s >= rough - 1e-12) ?? 10 * size;
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i++) {
    found.push(i * step);
  }
  return found;
}

/**
 * The largest of `values`, at least `least`.
 * @param {Iterable<number>} values
 * @param {number} [least]
 */
export function largest(values, least = -Infinity) {
  let found = least;
  for (const value of values) if (value > found) found = value;
  return found;
}

/**
 * Random numbers in [0, 1) from a seed (mulberry32), the same on every machine.
 * @param {number} seed
 */
export function randomNumbers(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let r = Math.imul(state ^ (state >>> 15), 1 | state);
    r = (r + Math.imul(r ^ (r >>> 7), 61 | r)) ^ r;
    return ((r ^ (r >>> 14)) >>> 0) / 4294967296;
  };
}

/**
 * `count` draws of N(0, 1) from a seed (Box and Muller 1958), float32.
 * @param {number} seed
 * @param {number} count
 */
export function normalNumbers(seed, count) {
  const uniform = randomNumbers(seed);
  const drawn = new Float32Array(count);
  for (let i = 0; i < count; i += 2) {
    const radius = Math.sqrt(-2 * Math.log(1 - uniform()));
    const angle = 2 * Math.PI * uniform();
    drawn[i] = radius * Math.cos(angle);
    if (i + 1 < count) drawn[i + 1] = radius * Math.sin(angle);
  }
  return drawn;
}

/**
 * Mean and standard deviation of values[from..to).
 * @param {Numbers} values
 * @param {number} from
 * @param {number} to
 */
export function moments(values, from, to) {
  let sum = 0;
  let squares = 0;
  for (let p = from; p < to; p++) {
    sum += values[p];
    squares += values[p] ** 2;
  }
  const mean = sum / (to - from);
  return { mean, deviation: Math.sqrt(Math.max(0, squares / (to - from) - mean * mean)) };
}
