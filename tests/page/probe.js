// What checks ask of a page. Functions only: they read, and change nothing but what `rest` keeps.

/** Text without white space and marks of direction, so that a break in a line changes nothing. */
const plain = (text) => text.replace(/[\s\u200e\u200f\u202a-\u202e\u2066-\u2069]+/g, "");

const panel = (name) => document.querySelector(`section[data-panel="${name}"]`);

/** What a person reads in a panel, one that is hidden from the eye but read aloud included. */
const words = (name) => { const found = panel(name); return found ? plain(found.textContent) : ""; };

/** Seen by the eye: has a box, and is not cut down to a dot for screen readers. */
const shown = (element) => {
  const box = element.getBoundingClientRect();
  return box.width > 1 && box.height > 1
    && element.checkVisibility({ opacityProperty: true, visibilityProperty: true });
};

const panels = () => [...document.querySelectorAll("section[data-panel]")].map((element) => ({
  name: element.dataset.panel,
  heading: plain(element.querySelector("h1,h2,h3")?.textContent ?? ""),
  text: plain(element.textContent).length,
  shown: shown(element),
}));

/** Numbers of a metric within a panel (or the page), narrowed by data- attributes. */
const numbers = (metric, within, only = {}) => {
  const root = within ? panel(within) : document;
  if (!root) return [];
  return [...root.querySelectorAll(`[data-metric="${metric}"]`)]
    .filter((element) => Object.entries(only).every(([name, value]) => about(element, name) === value))
    .map((element) => ({
      value: element.dataset.value ?? null,
      text: plain(element.textContent),
      state: about(element, "state") ?? "",
      gpu: `${about(element, "node")}/${about(element, "gpu")}`,
    }));
};

/** What a data- attribute says of an element: its own, or that of what it stands in. */
const about = (element, name) => element.closest(`[data-${name}]`)?.dataset[name];

const values = (metric, within, only) => numbers(metric, within, only).map((number) => Number(number.value));

const tiles = () => [...document.querySelectorAll("[data-service]")].map((element) => ({
  name: element.dataset.service, state: element.dataset.state ?? "", text: plain(element.textContent),
}));

const tile = (name) => tiles().find((one) => one.name === name) ?? { name, state: "(no tile)", text: "" };

/** Whether a curve is drawn in a panel: a line with some points, or a canvas that is not empty. */
const drawn = (name) => {
  const lines = [...panel(name).querySelectorAll("svg path, svg polyline")].filter((line) => shown(line.ownerSVGElement));
  const painted = (canvas) => canvas.width > 0 && canvas.height > 0 && shown(canvas)
    && canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.some((part) => part !== 0);
  return lines.some((line) => (line.getAttribute("d") ?? line.getAttribute("points") ?? "").match(/[\d.]+/g)?.length >= 4)
    || [...panel(name).querySelectorAll("canvas")].some(painted);
};

/** The points of a panel's curve: step of the day, least, mean, largest. */
const points = (name) => (panel(name).querySelector("[data-points]")?.dataset.points ?? "")
  .split(";").filter(Boolean).map((point) => point.split(",").map(Number));

/** A path that finds an element again. */
const path = (element) => {
  const one = (node) => node.tagName.toLowerCase() + (node.id ? `#${node.id}` : "")
    + [...node.classList].map((name) => `.${name}`).join("");
  return [element.parentElement, element].filter(Boolean).map(one).join(" > ");
};

/** Any colour that CSS can say, as [r, g, b, alpha]. */
const colour = (() => {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 1;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const known = new Map();
  return (text) => {
    if (!known.has(text)) {
      context.clearRect(0, 0, 1, 1);
      context.fillStyle = text;
      context.fillRect(0, 0, 1, 1);
      const [r, g, b, a] = context.getImageData(0, 0, 1, 1).data;
      known.set(text, [r, g, b, a / 255]);
    }
    return known.get(text);
  };
})();

const over = ([r, g, b, a], [R, G, B]) => [r * a + R * (1 - a), g * a + G * (1 - a), b * a + B * (1 - a), 1];

const luminance = ([r, g, b]) => {
  const part = (c) => { const s = c / 255; return s <= 0.04045 ? s / 12.92 : ((s + 0.055) / 1.055) ** 2.4; };
  return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
};

const ratio = (one, other) => {
  const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
};

/** What lies behind an element, every half-clear layer counted. */
const behind = (element) => {
  const layers = [];
  for (let node = element; node; node = node.parentElement) {
    const layer = colour(getComputedStyle(node).backgroundColor);
    layers.push(layer);
    if (layer[3] === 1) break;
  }
  const dark = matchMedia("(prefers-color-scheme: dark)").matches
    && getComputedStyle(document.documentElement).colorScheme.includes("dark");
  return layers.reverse().reduce((base, layer) => over(layer, base), dark ? [18, 18, 18, 1] : [255, 255, 255, 1]);
};

/** Every text that is seen, with its contrast; the least of each kind of element. */
const contrasts = () => {
  const least = new Map();
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let text = walker.nextNode(); text; text = walker.nextNode()) {
    const element = text.parentElement;
    if (!text.data.trim() || !shown(element) || element.closest("noscript,script,style")) continue;
    const style = getComputedStyle(element);
    const base = behind(element);
    const front = [...colour(element instanceof SVGElement ? style.fill : style.color)];
    for (let node = element; node; node = node.parentElement) front[3] *= Number(getComputedStyle(node).opacity);
    const found = { ratio: Math.round(ratio(over(front, base), base) * 100) / 100, path: path(element), text: text.data.trim().slice(0, 30) };
    if (!least.has(found.path) || least.get(found.path).ratio > found.ratio) least.set(found.path, found);
  }
  return [...least.values()].sort((a, b) => a.ratio - b.ratio);
};

/** What sticks out of the page to the side, and cannot be scrolled within a box of its own. */
const sticking = () => {
  const width = document.documentElement.clientWidth;
  const scrolls = (element) => {
    for (let node = element.parentElement; node && node !== document.body; node = node.parentElement) {
      if (["auto", "scroll", "hidden", "clip"].includes(getComputedStyle(node).overflowX)) return true;
    }
    return false;
  };
  return [...document.body.querySelectorAll("*")]
    .filter((element) => shown(element) && element.getBoundingClientRect().right > width + 1 && !scrolls(element))
    .slice(0, 5).map((element) => `${path(element)} ends at ${Math.round(element.getBoundingClientRect().right)} of ${width}`);
};

const wider = () => document.documentElement.scrollWidth - document.documentElement.clientWidth;

/** Everything that has a state, with the shape and the word that stand beside its colour. */
const SHAPES = /[\u25a0-\u25ff\u2600-\u27bf\u2b1b-\u2bff\u{1f7e0}-\u{1f7eb}✓✕×!?]/u;
// The words of a state, in both languages, as plain() leaves them.
const WORDS = /正常|注意|警告|異常|データなし|応答なし|未接続|受信中|稼働中|停止|起動中|復旧|ライブ|更新なし|OK|warning|critical|nodata|noframes|neverseen|live|ready|loading|recovered|noupdate/i;
const states = () => [...document.querySelectorAll("[data-state]")].filter(shown).map((element) => {
  const drawn = ["::before", "::after"].map((part) => [element, ...element.querySelectorAll("*")]
    .map((node) => getComputedStyle(node, part).content).filter((content) => !["none", "normal"].includes(content)).join("")).join("");
  const text = plain(element.textContent) + drawn;
  const labels = [element, ...element.querySelectorAll("[aria-label],[title]")].map((node) => `${node.getAttribute("aria-label") ?? ""} ${node.getAttribute("title") ?? ""}`).join(" ");
  return { path: path(element), state: element.dataset.state, shape: text.match(SHAPES)?.[0] ?? "", word: (text + plain(labels)).match(WORDS)?.[0] ?? "", text: text.slice(0, 60) };
});

const FOCUSABLE = "a[href],button,input,select,textarea,summary,[tabindex]:not([tabindex='-1'])";
const ring = (style) => style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0;
const look = (element) => {
  const style = getComputedStyle(element);
  const outline = ring(style) ? [style.outlineStyle, style.outlineWidth, style.outlineColor] : ["none"];
  return [...outline, style.boxShadow, style.backgroundColor, style.borderColor, style.textDecorationLine].join("|");
};

/** Keeps how everything looks that the keyboard can reach, while it is not reached. */
const rest = () => {
  window.pageTestRest = new WeakMap([...document.querySelectorAll(FOCUSABLE)].map((element) => [element, look(element)]));
  return true;
};

/** What the keyboard is on, and whether one sees it. */
const focus = () => {
  const element = document.activeElement;
  if (!element || element === document.body) return null;
  const style = getComputedStyle(element);
  const before = window.pageTestRest?.get(element);
  const box = element.getBoundingClientRect();
  const within = element.closest("[data-service],[data-node],article,li");
  return {
    path: path(element),
    href: element.getAttribute("href") ?? "",
    service: element.closest("[data-service]")?.dataset.service ?? element.querySelector?.("[data-service]")?.dataset.service ?? "",
    visible: (before === undefined ? ring(style) : before !== look(element)) && box.width > 1 && box.height > 1
      && box.bottom > 0 && box.top < innerHeight,
    name: plain(element.textContent || element.getAttribute("aria-label") || element.getAttribute("title") || within?.textContent || ""),
  };
};

/** How a name stands apart from what is around it, for writing from right to left. */
const isolated = (name) => {
  const wanted = plain(name);
  const holders = [...document.body.querySelectorAll("*")]
    .filter((element) => shown(element) && plain(element.textContent) === wanted);
  return holders.length > 0 && holders.some((element) => element.tagName === "BDI"
    || /isolate|plaintext/.test(getComputedStyle(element).unicodeBidi));
};
