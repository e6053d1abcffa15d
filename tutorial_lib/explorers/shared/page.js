// A page of its own: what stands in place of a kernel.

/** @import { Handler, Model } from "./types" */

/**
 * A model with the values that the page carries: `values` as they are, `bytes` in base64.
 * @param {string} text JSON
 * @returns {Model<Record<string, any>>}
 */
export function modelFrom(text) {
  const state = JSON.parse(text);
  /** @type {Record<string, any>} */
  const values = state.values;
  for (const [name, value] of Object.entries(state.bytes)) {
    const letters = atob(value);
    const bytes = new Uint8Array(letters.length);
    for (let i = 0; i < letters.length; i++) bytes[i] = letters.charCodeAt(i);
    values[name] = new DataView(bytes.buffer);
  }
  /** @type {Map<string, Set<Handler>>} */
  const handlers = new Map();
  return {
    get: (name) => values[name],
    set: (name, value) => {
      if (values[name] === value) return;
      values[name] = value;
      for (const handler of handlers.get(`change:${name}`) ?? []) handler();
    },
    on: (event, handler) => {
      if (!handlers.has(event)) handlers.set(event, new Set());
      handlers.get(event)?.add(handler);
    },
    off: (event, handler) => handlers.get(event)?.delete(handler),
    save_changes: () => {},
    send: () => {},
  };
}
