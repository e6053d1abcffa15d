// Receptive-field explorer: which input pixels reach an output pixel, read from maps made once.

/** What the pixels of one map (H x W bytes, 0 for no influence) span: counts, and first and last. */
function seen(map, [h, w]) {
  let count = 0, top = h, bottom = -1, left = w, right = -1;
  for (let p = 0; p < map.length; p++) {
    if (!map[p]) continue;
    const y = Math.floor(p / w), x = p % w;
    count++;
    top = Math.min(top, y); bottom = Math.max(bottom, y);
    left = Math.min(left, x); right = Math.max(right, x);
  }
  return { count, top, bottom, left, right, rows: Math.max(0, bottom - top + 1),
    columns: Math.max(0, right - left + 1) };
}

/** Where seen pixels border on others: lines [x0, y0, x1, y1] along the pixels, as long as can be. */
function edges(map, [h, w]) {
  const inside = (x, y) => x >= 0 && y >= 0 && x < w && y < h && map[y * w + x] > 0;
  const found = [];
  const trace = (across, along, differs, line) => {
    for (let a = 0; a <= across; a++) {
      for (let b = 0, from = -1; b <= along; b++) {
        const here = b < along && differs(a, b);
        if (here && from < 0) from = b;
        if (!here && from >= 0) { found.push(line(a, from, b)); from = -1; }
      }
    }
  };
  trace(w, h, (x, y) => inside(x, y) !== inside(x - 1, y), (x, y0, y1) => [x, y0, x, y1]);
  trace(h, w, (y, x) => inside(x, y) !== inside(x, y - 1), (y, x0, x1) => [x0, y, x1, y]);
  return found;
}

/** The map in colors, RGBA; pixels without influence are left clear. */
function paintField(data, map) {
  data.fill(0);
  for (let p = 0; p < map.length; p++) if (map[p]) ramp(data, 4 * p, (map[p] - 1) / 254);
}

function render({ model, el }) {
  const stage = new Stage({ model, el }, "Receptive-field explorer");
  const fields = numbers(model, "fields", Uint8Array), x_t = numbers(model, "x_t", Uint8Array);
  const names = model.get("model_names"), shape = model.get("shape"), [, h, w] = shape;
  const plane = h * w;

  stage.slider({ label: "output pixel", name: "pixel", min: 0, max: plane - 1, wide: true,
    says: String, reads: (p) => `pixel ${p} of 0 to ${plane - 1}. ${sentence()}` });
  stage.play({ name: "pixel", range: () => [0, plane - 1], seconds: 16 });
  const second = stage.row();
  stage.slider({ label: "row", name: "pixel", min: 0, max: h - 1, place: second,
    toValue: (y) => y * w + column(), toPlace: () => row(), says: () => String(row()),
    reads: () => `row ${row()} of 0 to ${h - 1}. ${sentence()}` });
  stage.slider({ label: "column", name: "pixel", min: 0, max: w - 1, place: second,
    toValue: (x) => row() * w + x, toPlace: () => column(), says: () => String(column()),
    reads: () => `column ${column()} of 0 to ${w - 1}. ${sentence()}` });
  const hint = element("span", {}, "or click or drag on a picture");
  second.append(hint);
  const say = stage.line(), box = stage.panels();

  const columns = Math.min(3, names.length + 1); // side by side in a notebook's column
  const across = Math.min(280, Math.floor((810 - 18 * (columns - 1)) / columns) - 2);
  const scale = Math.max(2, Math.floor(across / Math.max(h, w)));
  const flat = { width: w * scale + 2, height: h * scale + 2, place: box, x: [0, w], y: [h, 0],
    xTicks: [], yTicks: [], margins: [1, 1, 1, 1] };
  const input = stage.chart({ ...flat, caption: "the input, and what pixel + sees" });
  const charts = names.map((name) => stage.chart({ ...flat, caption: name }));
  const pictures = [input, ...charts].map(() => offscreen(w, h));
  paintImage(pictures[0].data, w, 0, 0, shape, 0, (p) => x_t[p] / 127.5 - 1);
  pictures[0].put();

  const bar = stage.chart({ width: 60 + 200, height: 34, place: stage.root, x: [0, 1], y: [0, 1],
    xTicks: [[0, "1/1000"], [1 / 3, "1/100"], [2 / 3, "1/10"], [1, "largest"]], yTicks: [],
    margins: [2, 34, 18, 26],
    caption: "influence, relative to the largest; an empty square: none at all" });
  const scaleBar = offscreen(200, 1);
  for (let i = 0; i < 200; i++) ramp(scaleBar.data, 4 * i, i / 199);
  scaleBar.put();
  bar.still = (context) => blit(context, bar, scaleBar);
  bar.describe("The scale of the colors: from dark, a thousandth of the largest influence, to light, the largest.");

  function blit(context, chart, picture) {
    const { left, top, right, bottom } = chart.box;
    context.imageSmoothingEnabled = false;
    context.drawImage(picture.canvas, left, top, right - left, bottom - top);
  }
  const pixel = () => clamp(stage.get("pixel"), 0, plane - 1);
  const row = () => Math.floor(pixel() / w), column = () => pixel() % w;
  function map(k) {
    const from = (k * plane + pixel()) * plane;
    return fields.subarray(from, from + plane);
  }
  const says = (k) => {
    const { count, rows, columns } = seen(map(k), shape.slice(1));
    const part = Math.round((100 * count) / plane);
    return count ? `sees ${columns} × ${rows} pixels (${part} %)` : "sees nothing";
  };
  const sentence = () => names.map((name, k) => `${name} ${says(k)}`).join("; ");

  for (const chart of [input, ...charts]) {
    chart.canvas.style.cursor = "crosshair";
    chart.canvas.style.touchAction = "none"; // a finger that drags here does not scroll the page
    const choose = (event) => {
      const bounds = chart.canvas.getBoundingClientRect(); // may be narrower than drawn
      const x = ((event.clientX - bounds.left) / bounds.width) * chart.width - 1;
      const y = ((event.clientY - bounds.top) / bounds.height) * chart.height - 1;
      const [i, j] = [clamp(Math.floor(y / scale), 0, h - 1), clamp(Math.floor(x / scale), 0, w - 1)];
      stage.set("pixel", i * w + j);
    };
    stage.listen(chart.canvas, "pointerdown", (event) => {
      if (event.button) return;
      chart.canvas.setPointerCapture(event.pointerId);
      choose(event);
    });
    stage.listen(chart.canvas, "pointermove", (event) => { if (event.buttons & 1) choose(event); });
  }

  /** The edge between what is seen and what is not, in the color and dash `which`. */
  function outline(c, chart, values, which) {
    c.beginPath();
    for (const [x0, y0, x1, y1] of edges(values, [h, w])) {
      c.moveTo(chart.px(x0), chart.py(y0));
      c.lineTo(chart.px(x1), chart.py(y1));
    }
    for (const [width, color, dash] of [[4, stage.theme.paper, []], [2, stage.theme.curves[which], DASHES[which]]]) {
      c.lineWidth = width;
      c.strokeStyle = color;
      c.setLineDash(dash);
      c.stroke();
    }
    c.setLineDash([]);
  }
  function cross(c, chart) {
    const x = chart.px(column() + 0.5), y = chart.py(row() + 0.5), arm = Math.max(5, scale * 0.7);
    for (const [width, color] of [[5, stage.theme.paper], [2, stage.theme.ink]]) {
      c.lineWidth = width;
      c.strokeStyle = color;
      chart.segment(c, x - arm, y, x + arm, y);
      chart.segment(c, x, y - arm, x, y + arm);
    }
  }
  function frame(c, chart) {
    const { left, top, right, bottom } = chart.box;
    c.strokeStyle = stage.theme.ink;
    c.lineWidth = 1;
    c.strokeRect(left - 0.5, top - 0.5, right - left + 1, bottom - top + 1);
  }

  stage.paints(["pixel"], (anew) => {
    const maps = names.map((_, k) => map(k));
    input.frame(anew, (c) => {
      blit(c, input, pictures[0]);
      frame(c, input);
      for (const [k, values] of maps.entries()) outline(c, input, values, k % DASHES.length);
      cross(c, input);
    });
    for (const [k, chart] of charts.entries()) {
      paintField(pictures[k + 1].data, maps[k]);
      pictures[k + 1].put();
      chart.frame(anew, (c) => {
        blit(c, chart, pictures[k + 1]);
        frame(c, chart);
        outline(c, chart, maps[k], k % DASHES.length);
        cross(c, chart);
      });
      chart.describe(`${names[k]}: the output pixel at row ${row()}, column ${column()} ${says(k)} of ${w} × ${h}.`);
    }
    bar.frame(anew);
    say(`row ${row()}, column ${column()}: ${sentence()}`);
    input.describe(`The input picture, ${w} × ${h} pixels, with the outline of what the output ` +
      `pixel at row ${row()}, column ${column()} sees in each model: ${sentence()}`);
  });
  return () => stage.end();
}

const widget = { render };
export { edges, paintField, seen };
export default widget;
