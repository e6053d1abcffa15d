// Words explorer: a sentence becomes a picture, and each word shows where it is heard.

/** @import { Numbers, View } from "../shared/types" */
/** @import { WordsExplorerTraits } from "../shared/traits" */

import { Kernel } from "../shared/kernel.js";
import { clamp, typedArray } from "../shared/numbers.js";
import { contextOf, describe, element, offscreen, ramp } from "../shared/pixels.js";
import { Stage } from "../shared/stage.js";
import { ASK, MAP_LEVELS, TELL, TITLES } from "../shared/wire.js";

const SIDE = 290; // of the two pictures, on the screen
const COVER = 0.75; // how much a map hides of the picture below it

/**
 * The parts of `bytes` that end where `ends` says.
 * @param {Uint8Array} bytes
 * @param {Numbers} ends
 */
export function parts(bytes, ends) {
  return Array.from(ends, (end, k) => bytes.slice(k ? ends[k - 1] : 0, end));
}

/**
 * The number of a walk: by sentence, then by seed, then by scale.
 * @param {number} sentence
 * @param {number} seed
 * @param {number} scale
 * @param {number} seeds how many there are
 * @param {number} scales
 */
export function walkNumber(sentence, seed, scale, seeds, scales) {
  return (sentence * seeds + seed) * scales + scale;
}

// Where on a map.
const PLACES = [
  ["at the upper left", "at the top", "at the upper right"],
  ["on the left", "in the middle", "on the right"],
  ["at the lower left", "at the bottom", "at the lower right"],
];

/**
 * The largest of `values`, and where on a map of h x w it is, in words.
 * @param {Numbers} values
 * @param {number} h
 * @param {number} w
 */
export function highest(values, h, w) {
  let at = 0;
  for (let p = 1; p < h * w; p++) if (values[p] > values[at]) at = p;
  const row = Math.floor((3 * (Math.floor(at / w) + 0.5)) / h);
  const column = Math.floor((3 * ((at % w) + 0.5)) / w);
  return { value: values[at], where: PLACES[row][column] };
}

/**
 * A file of pixels as a picture, its colors as they are.
 * @param {Uint8Array<ArrayBuffer>} file
 * @param {string} type
 */
function decoded(file, type) {
  return createImageBitmap(new Blob([file], { type }), { colorSpaceConversion: "none" });
}

/**
 * The levels of a file of maps, as bytes: a row of maps for each word, a column for each step.
 * @param {Uint8Array<ArrayBuffer>} file
 */
async function levelsOf(file) {
  const picture = await decoded(file, "image/png");
  const { width, height } = picture;
  const context = contextOf(element("canvas", { width, height }));
  context.drawImage(picture, 0, 0);
  picture.close();
  const { data } = context.getImageData(0, 0, width, height);
  return { width, levels: Uint8Array.from({ length: width * height }, (_, p) => data[4 * p]) };
}

/**
 * What the model holds of all sentences, ready to be drawn.
 * @typedef {object} Held
 * @property {string[]} sentences
 * @property {ImageBitmap[]} pictures one for each walk: its pictures side by side
 * @property {{ width: number, levels: Uint8Array }[]} maps
 * @property {Float32Array} peaks
 * @property {Uint8Array} right
 * @property {Uint8Array} whole
 * @property {number} longest words, to which `peaks` and `right` are filled up
 */

/**
 * @param {View<WordsExplorerTraits>["model"]} model
 * @returns {Promise<Held>}
 */
async function unpacked(model) {
  const sentences = model.get("sentences");
  const held = {
    sentences,
    peaks: typedArray(model, "peaks", Float32Array),
    right: typedArray(model, "right", Uint8Array),
    whole: typedArray(model, "whole", Uint8Array),
    longest: Math.max(...sentences.map((sentence) => sentence.split(" ").length)),
  };
  const pictures = parts(typedArray(model, "pictures", Uint8Array), model.get("picture_ends"));
  const maps = parts(typedArray(model, "maps", Uint8Array), model.get("map_ends"));
  return {
    ...held,
    pictures: await Promise.all(pictures.map((file) => decoded(file, "image/jpeg"))),
    maps: await Promise.all(maps.map(levelsOf)),
  };
}

/**
 * Decodes the pictures, and then draws: nothing is seen before all is there.
 * @param {View<WordsExplorerTraits>} view
 */
export const render = async ({ model, el }) => {
  let held = await unpacked(model);
  const stage = new Stage({ model, el }, TITLES.words);
  const [, h, w] = model.get("shape");
  const [rows, columns] = model.get("map_shape");
  const scales = model.get("scales");
  const seeds = model.get("seeds");
  const timesteps = model.get("timesteps");
  const last = timesteps.length - 1;
  const alone = !model.widget_manager; // a page of its own has no kernel to ask

  const chosen = () => clamp(stage.get("chosen"), 0, held.sentences.length - 1);
  const words = () => held.sentences[chosen()].split(" ");
  const place = () => clamp(stage.get("place"), 0, last);
  const scale = () => clamp(stage.get("scale_place"), 0, scales.length - 1);
  const seed = () => clamp(stage.get("seed_place"), 0, seeds.length - 1);
  const walk = () => walkNumber(chosen(), seed(), scale(), seeds.length, scales.length);
  let pointed = -1; // the word that is pointed at, or has the focus
  const word = () => clamp(pointed < 0 ? stage.get("word") : pointed, 0, words().length - 1);
  const peak = (/** @type {number} */ k) => held.peaks[walk() * held.longest + k];
  const judged = () => held.right.length > 0;
  const holds = (/** @type {number} */ k) => Boolean(held.right[walk() * held.longest + k]);

  /** @type {[number, string][]} */
  const listed = [];
  const select = stage.choice({ label: "sentence", name: "chosen", options: listed });
  /** Puts the sentences that are held on the list. */
  function list() {
    listed.length = 0;
    for (const [k, s] of held.sentences.entries()) listed.push([k, s]);
    select.replaceChildren(...held.sentences.map((s) => element("option", {}, s)));
  }
  list();
  stage.choice({
    label: "guidance scale",
    name: "scale_place",
    options: scales.map((s, k) => [k, s === 1 ? "1 (none)" : String(s)]),
  });
  stage.choice({
    label: "seed",
    name: "seed_place",
    options: seeds.map((s, k) => [k, String(s)]),
  });
  const note = element("span", { class: "tx-note", role: "status" });
  const own = stage.row();
  const field = element("input", {
    type: "text",
    class: "tx-text",
    size: 44,
    autocomplete: "off",
    spellcheck: "false",
    placeholder: held.sentences[0],
  });
  if (model.get("draws") && !alone) {
    stage.labeled("your sentence", field, own);
    stage.listen(field, "keydown", (event) => {
      if (event.key === "Enter" && !event.isComposing) ask(field.value);
    });
    stage.button("Draw", () => ask(field.value), own);
  } else if (model.get("draws")) {
    note.textContent = "these sentences were drawn before; typing your own needs a running kernel";
  }
  own.append(note);
  const steps = stage.row();
  stage.slider({
    label: "step",
    name: "place",
    min: 0,
    max: last,
    wide: true,
    place: steps,
    text: () => `t = ${timesteps[place()]}`,
    spoken: () => sentence(),
  });
  stage.play({ name: "place", range: () => [0, last], seconds: 4, place: steps });
  const say = stage.line();
  const box = stage.panels();
  box.classList.add("tx-pair");
  const zoom = SIDE / Math.max(h, w);
  const size = { columns: w, rows: h, scale: zoom, place: box };
  const picture = stage.pictureChart({
    ...size,
    caption: "x0_hat, the picture that the model expects",
  });
  const over = stage.pictureChart({ ...size, caption: "where the word is heard; yellow: most" });
  const table = element("div", { class: "tx-words", role: "group", "aria-label": "words" });
  stage.root.append(table);
  const verdict = stage.line({ role: "status" });
  const map = offscreen(columns, rows);

  /**
   * The map of word k at this step, as levels.
   * @param {number} k
   */
  function levels(k) {
    const { width, levels } = held.maps[walk()];
    const found = new Uint8Array(rows * columns);
    for (let y = 0; y < rows; y++) {
      const from = (k * rows + y) * width + place() * columns;
      found.set(levels.subarray(from, from + columns), y * columns);
    }
    return found;
  }
  /**
   * Where and how much word k is heard at this step.
   * @param {number} k
   */
  function heard(k) {
    const { value, where } = highest(levels(k), rows, columns);
    const share = Math.round(100 * peak(k) * (value / MAP_LEVELS));
    return { share, where };
  }
  /** @param {number} k */
  function heardInWords(k) {
    const { share, where } = heard(k);
    if (!share) return `"${words()[k]}" is hardly heard`;
    return `"${words()[k]}" gets up to ${share} % of a place's attention, most ${where}`;
  }
  function setting() {
    const t = timesteps[place()];
    const end = place() === last ? ", the finished picture" : "";
    return `t = ${t}${end}, guidance scale ${scales[scale()]}, seed ${seeds[seed()]}`;
  }
  const sentence = () => `${setting()}. ${heardInWords(word())}`;

  let columnsOf = "";
  /** A button and a small map for each word, made anew for another sentence. */
  function layOut() {
    if (columnsOf === held.sentences[chosen()]) return;
    columnsOf = held.sentences[chosen()];
    pointed = -1;
    const made = words().map((_, k) => {
      const column = element("div", { class: "tx-word", "data-word": k });
      const small = element("canvas", { role: "img", width: columns, height: rows });
      const button = element("button", { type: "button", class: "tx-button" });
      column.append(button, small, element("span", { class: "tx-share" }));
      return column;
    });
    table.replaceChildren(...made);
  }
  /**
   * The word that belongs to an element, -1 for none.
   * @param {EventTarget | null} target
   */
  function wordOf(target) {
    const column = target instanceof Element ? target.closest("[data-word]") : null;
    return column instanceof HTMLElement ? Number(column.dataset.word) : -1;
  }
  /** @param {number} k */
  function point(k) {
    if (pointed === k) return;
    pointed = k;
    stage.redraw();
  }
  stage.listen(table, "click", ({ target }) => {
    const k = wordOf(target);
    if (k >= 0) stage.set("word", k);
  });
  stage.listen(table, "pointerover", ({ target, pointerType }) => {
    if (pointerType !== "touch") point(wordOf(target)); // a finger taps, and that is a click
  });
  stage.listen(table, "pointerleave", () => point(-1));
  stage.listen(table, "focusin", ({ target }) => point(wordOf(target)));
  stage.listen(table, "focusout", () => point(-1));

  function paintWords() {
    layOut();
    for (const [k, text] of words().entries()) {
      const column = /** @type {HTMLElement} */ (table.children[k]);
      const [button, small, share] = /** @type {[HTMLElement, HTMLCanvasElement, HTMLElement]} */ (
        /** @type {unknown} */ ([...column.children])
      );
      const mark = judged() ? (holds(k) ? "✓ " : "✗ ") : "";
      const right = judged() ? (holds(k) ? ", right" : ", wrong") : "";
      button.textContent = `${mark}${text}`;
      button.setAttribute("aria-label", `${text}, word ${k + 1}${right}`);
      button.setAttribute("aria-pressed", String(k === stage.get("word")));
      column.classList.toggle("tx-on", k === word());
      column.classList.toggle("tx-wrong", judged() && !holds(k));
      paintMap(k);
      contextOf(small).drawImage(map.canvas, 0, 0);
      describe(small, heardInWords(k));
      share.textContent = `${heard(k).share} %`;
    }
  }
  /**
   * Paints the map of a word into `map`.
   * @param {number} k
   */
  function paintMap(k) {
    const found = levels(k);
    for (let p = 0; p < found.length; p++) ramp(map.data, 4 * p, found[p] / MAP_LEVELS);
    map.put();
  }
  function judgment() {
    if (!judged()) return "";
    const wrong = words().flatMap((text, k) => (holds(k) ? [] : [`${text} (word ${k + 1})`]));
    const count = words().length;
    const who = "The judge on the finished picture:";
    if (wrong.length)
      return `${who} ${count - wrong.length} of ${count} words hold; ✗ ${wrong.join(", ")}.`;
    if (!held.whole[walk()])
      return `${who} all ${count} words hold, but there is another object. ✗`;
    return `${who} all ${count} words hold. ✓`;
  }

  /** @type {Kernel<WordsExplorerTraits> | null} */
  let kernel = null;
  let asked = ""; // the sentence that is being drawn
  let told = ""; // what the kernel said of it
  /** @param {string} text */
  function ask(text) {
    if (!kernel || (asked && !kernel.silent)) return; // one sentence at a time
    told = text.trim() ? "" : "type a sentence first";
    asked = text.trim();
    if (asked) kernel.ask(ASK.DRAW, { sentence: asked });
    else note.textContent = told;
  }
  /** @param {string} text */
  function answer(text, refused = true) {
    asked = "";
    told = text;
    field.setAttribute("aria-invalid", String(refused));
  }
  if (model.get("draws") && !alone) {
    const handlers = {
      [TELL.HEARD]: () => {},
      [TELL.REFUSED]: (/** @type {{ text: string }} */ { text }) => answer(text),
      [TELL.FAILED]: (/** @type {{ text: string }} */ { text }) => answer(text),
      [TELL.DRAWN]: (/** @type {{ sentence: string }} */ { sentence }) =>
        answer(`drawn: ${sentence}`, false),
    };
    kernel = new Kernel(stage, handlers, () => {
      const talk = /** @type {Kernel<WordsExplorerTraits>} */ (kernel);
      if (talk?.gone) note.textContent = "no kernel: run this cell";
      else if (talk?.silent) note.textContent = "waiting for the kernel, which is busy or gone";
      else note.textContent = asked ? "drawing ..." : told;
    });
    kernel.ask(ASK.HELLO);
  }

  let latest = 0;
  stage.follow("pictures", async () => {
    latest += 1;
    const mine = latest;
    const found = await unpacked(model);
    if (mine !== latest || stage.lifetime.signal.aborted) return;
    for (const old of held.pictures) old.close();
    held = found;
    list();
    stage.redraw();
  });

  stage.paints(["chosen", "scale_place", "seed_place", "place", "word"], (full) => {
    paintWords();
    const strip = held.pictures[walk()];
    const k = word();
    for (const chart of [picture, over]) {
      chart.frame(full, (c) => {
        const { left, top, right, bottom } = chart.box;
        const [wide, high] = [right - left, bottom - top];
        c.imageSmoothingEnabled = true;
        c.imageSmoothingQuality = "high";
        c.drawImage(strip, place() * w, 0, w, h, left, top, wide, high);
        if (chart === over) {
          c.globalCompositeOperation = "saturation"; // of the gray that is filled in: none
          c.fillStyle = "#808080";
          c.fillRect(left, top, wide, high);
          c.globalCompositeOperation = "source-over";
          paintMap(k);
          c.globalAlpha = COVER;
          c.drawImage(map.canvas, left, top, wide, high);
          c.globalAlpha = 1;
        }
        c.strokeStyle = stage.theme.ink;
        c.lineWidth = 1;
        c.strokeRect(left - 0.5, top - 0.5, wide + 1, high + 1);
      });
    }
    say(sentence());
    verdict(judgment());
    picture.describe(`The picture that the model expects for "${words().join(" ")}". ${setting()}`);
    over.describe(`The same, and over it where a word is heard. ${sentence()}`);
  });
  return () => {
    latest += 1;
    for (const strip of held.pictures) strip.close();
    stage.end();
  };
};

export default { render };
