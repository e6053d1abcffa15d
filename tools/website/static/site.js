// What the pages of the website do: explorers come alive, digits come out of noise.

// Explorers take the place of their still pictures, each when it comes near the screen.

/** What the scripts of explorers bring: code by kind, and what each one holds, as JSON. */
window.courseExplorers = { kinds: {}, held: {} };

const loading = new Map();

function load(address) {
  if (!loading.has(address)) {
    const loaded = new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = address;
      script.onload = resolve;
      script.onerror = () => reject(new Error(`${address} did not load`));
      document.head.append(script);
    });
    loading.set(address, loaded);
  }
  return loading.get(address);
}

async function awaken(place) {
  const { kind, holds, root } = place.dataset;
  const folder = `${root}explorers/`;
  await Promise.all([load(`${folder}${kind}.js`), load(`${folder}${holds}.js`)]);
  const { modelFrom, render } = window.courseExplorers.kinds[kind];
  const model = modelFrom(window.courseExplorers.held[holds]);
  place.replaceChildren();
  await render({ model, el: place });
  place.dataset.alive = "";
}

function watch() {
  const near = new IntersectionObserver(
    (entries) => {
      for (const { isIntersecting, target } of entries) {
        if (!isIntersecting) continue;
        near.unobserve(target);
        awaken(target).catch((error) => console.error(error));
      }
    },
    { rootMargin: "600px" },
  );
  for (const place of document.querySelectorAll(".explorer")) near.observe(place);
}

// Code, and tables, that are wider than their box can be scrolled by keyboard.

function reachScrolled() {
  for (const box of document.querySelectorAll("pre, .table-wrapper")) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  }
}

// The front page: digits on their way out of noise.

function animateHero(figure) {
  const still = figure.querySelector("img");
  const steps = JSON.parse(figure.dataset.steps);
  const [width, height] = ["width", "height"].map((side) => Number(still.getAttribute(side)));
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width, height: 2 * height });
  canvas.setAttribute("role", "img");
  const context = canvas.getContext("2d");
  const sprite = new Image();

  const slider = Object.assign(document.createElement("input"), {
    type: "range",
    min: 0,
    max: steps.length - 1,
    value: 0,
  });
  const label = document.createElement("label");
  label.append("timestep t ", slider);
  const said = document.createElement("output");
  const button = Object.assign(document.createElement("button"), { type: "button" });
  const controls = document.createElement("div");
  controls.className = "hero-controls";
  controls.append(button, label, said);
  const caption = document.createElement("figcaption");
  caption.textContent = "Above: the pictures. Below: what the network expects to come out.";

  let playing = 0;
  const draw = () => {
    const frame = Number(slider.value);
    context.drawImage(sprite, 0, -2 * height * frame);
    const text = `t = ${steps[frame]}`;
    said.textContent = text;
    slider.setAttribute("aria-valuetext", text);
    const what = frame === steps.length - 1 ? "ten digits, 0 to 9" : "digits under noise";
    canvas.setAttribute("aria-label", `${text}: ${what}; below, what the network expects`);
    figure.dataset.frame = String(frame);
  };
  const stop = () => {
    cancelAnimationFrame(playing);
    playing = 0;
    button.textContent = "Play";
  };
  const play = () => {
    const from = Number(slider.value) === steps.length - 1 ? 0 : Number(slider.value);
    const begun = performance.now();
    button.textContent = "Pause";
    const next = (now) => {
      const frame = Math.min(from + Math.floor((now - begun) / 160), steps.length - 1);
      if (frame !== Number(slider.value) || frame === from) {
        slider.value = String(frame);
        draw();
      }
      if (frame === steps.length - 1) stop();
      else playing = requestAnimationFrame(next);
    };
    playing = requestAnimationFrame(next);
  };
  slider.addEventListener("input", () => {
    stop();
    draw();
  });
  button.addEventListener("click", () => (playing ? stop() : play()));
  sprite.onload = () => {
    still.replaceWith(canvas);
    canvas.after(controls, caption);
    draw();
    stop();
    if (!matchMedia("(prefers-reduced-motion: reduce)").matches) play();
  };
  sprite.src = figure.dataset.sprite;
}

for (const figure of document.querySelectorAll(".hero")) animateHero(figure);
watch();
reachScrolled();
addEventListener("resize", reachScrolled);
document.addEventListener("toggle", reachScrolled, true); // what was folded has no width
