// The line to the kernel, and whether anybody answers at its other end.

/** @import { Stage } from "./stage.js" */

import { ASK } from "./wire.js";

const PATIENCE = 1500; // ms without an answer until the kernel counts as silent
const PATIENCE_AT_WORK = 5000; // the same while it computes, and should report now and then

/**
 * @typedef {Record<string, (content: any, buffers: DataView[]) => void>} Handlers
 *   What to do with a message, by its kind.
 */

/**
 * Sends requests to the kernel and notices when no answer comes. Every message of the kernel counts
 * as an answer, also a late one.
 * @template T
 */
export class Kernel {
  /**
   * @param {Stage<T>} stage
   * @param {Handlers} handlers
   * @param {() => void} changed called after each message, and when the kernel falls silent
   */
  constructor(stage, handlers, changed) {
    this.stage = stage;
    this.changed = changed;
    this.view = Math.random().toString(36).slice(2);
    this.work = ""; // what the kernel is computing; while there is something, it should report
    this.waiting = false; // a request has had no answer yet
    this.silent = false; // no answer in time
    this.gone = false; // nobody to send to
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.timer = undefined;
    stage.onMessage((content, buffers) => {
      clearTimeout(this.timer);
      this.waiting = false;
      this.silent = false;
      handlers[content.kind]?.(content, buffers);
      if (this.work) this.wait();
      this.changed();
    });
    stage.cleanups.push(() => this.end());
  }

  /**
   * Sends a request, after the values that it may depend on, and watches for an answer.
   * @param {string} kind one of ASK
   * @param {object} [content]
   * @param {ArrayBufferLike[]} [buffers]
   */
  ask(kind, content = {}, buffers = []) {
    this.stage.save();
    this.waiting = true;
    try {
      this.stage.model.send({ ...content, kind, view: this.view }, undefined, buffers);
      this.wait();
    } catch {
      this.gone = true;
      this.silent = true;
    }
    this.changed();
  }

  /** Starts the clock anew. */
  wait() {
    clearTimeout(this.timer);
    const patience = this.work ? PATIENCE_AT_WORK : PATIENCE;
    this.timer = setTimeout(() => {
      this.silent = true;
      this.changed();
    }, patience);
  }

  end() {
    clearTimeout(this.timer);
    try {
      this.stage.model.send({ kind: ASK.BYE, view: this.view });
    } catch {
      // No kernel is left to be told.
    }
  }
}
