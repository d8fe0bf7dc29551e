"use strict";

// All heads as small pictures: queries on the left edge, keys on the right, a line for each weight.

const grid = $("grid");
let thumbs = [];

function buildGrid() {
  const { heads, names } = stream();
  const layers = [...new Set(heads.map(([layer]) => layer))];
  const numbers = [...new Set(heads.map(([, head]) => head))].sort((a, b) => a - b);
  const room = grid.parentElement.clientWidth - 34 - 2 * numbers.length;
  const size = Math.max(22, Math.min(64, Math.floor(room / numbers.length)));
  grid.style.gridTemplateColumns = `1.6rem repeat(${numbers.length}, ${size}px)`;
  grid.replaceChildren(el("span"), ...numbers.map((number) => el("span", { "aria-hidden": "true" }, String(number))));
  thumbs = [];
  for (const layer of layers) {
    grid.append(el("span", { "aria-hidden": "true" }, String(layer)));
    for (const number of numbers) {
      const head = heads.findIndex((place) => place[0] === layer && place[1] === number);
      grid.append(head < 0 ? el("span") : thumb(head, size, [layers.indexOf(layer), numbers.indexOf(number)]));
    }
  }
  markThumbs();
  drawThumbs();
}

function thumb(head, size, place) {
  const canvas = el("canvas", { "aria-hidden": "true" });
  const name = stream().names[head];
  const known = stream().cards?.[name]?.name;
  const title = known ? `${name}: ${known}` : name;
  const button = el("button", { type: "button", class: "thumb", tabindex: "-1", "aria-label": title, title }, canvas);
  button.dataset.head = name;
  button.style.width = button.style.height = `${size}px`;
  button.addEventListener("click", (event) => chooseHead(head, event.shiftKey || $("several").checked));
  button.addEventListener("keydown", (event) => moveInGrid(event, place));
  thumbs.push({ head, place, button, canvas, size: size - 2 });
  return button;
}

function moveInGrid(event, [row, column]) {
  const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
  if (!step) return;
  event.preventDefault();
  const ahead = ({ place: [y, x] }) =>
    step[0] ? x === column && (y - row) * step[0] > 0 : y === row && (x - column) * step[1] > 0;
  const distance = ({ place: [y, x] }) => Math.abs(y - row) + Math.abs(x - column);
  const next = thumbs.filter(ahead).sort((a, b) => distance(a) - distance(b))[0];
  if (!next) return;
  for (const { button } of thumbs) button.tabIndex = -1;
  next.button.tabIndex = 0;
  next.button.focus();
}

function chooseHead(head, add) {
  const others = state.heads.filter((other) => other !== head);
  if (!add) state.heads = [head];
  else if (others.length < state.heads.length) state.heads = others.length ? others : state.heads;
  else state.heads = [...others, head].slice(-MOST_COLOURS);
  changed("heads");
}

function markThumbs() {
  for (const { head, button } of thumbs) {
    const at = state.heads.indexOf(head);
    button.setAttribute("aria-pressed", String(at >= 0));
    button.style.setProperty("--own", `var(--line-${Math.max(at, 0)})`);
    button.tabIndex = head === state.heads[0] ? 0 : -1;
  }
}

/** Draw the small pictures, a few at a time, so that the page answers meanwhile. */
let drawing = 0;
function drawThumbs() {
  const mine = ++drawing;
  const waiting = [...thumbs];
  const some = () => {
    const until = performance.now() + 12;
    while (waiting.length && performance.now() < until) drawThumb(waiting.shift());
    if (waiting.length && mine === drawing) requestAnimationFrame(some);
    else if (mine === drawing) document.documentElement.dataset.drawn = String(drawing);
  };
  delete document.documentElement.dataset.drawn;
  requestAnimationFrame(some);
}

/** The lines of a small picture, by opacity in tenths: {opacity: [[y of query, y of key], …]}, y from 0 to 1. */
function smallLines(head) {
  const { queries, keys } = units();
  const place = state.pinned;
  const only = place ? (place.side === "queries" ? { rows: [unitOf(place)] } : { columns: [unitOf(place)] }) : {};
  const byTenth = {};
  for (const [query, key, , strength] of visible(head, only)) {
    const tenth = Math.ceil(strength * 10) / 10;
    byTenth[tenth] ??= [];
    byTenth[tenth].push([(query + 0.5) / queries.groups.length, (key + 0.5) / keys.groups.length]);
  }
  return byTenth;
}

function drawThumb({ head, canvas, size }) {
  const scale = Math.min(devicePixelRatio || 1, 2);
  canvas.width = canvas.height = size * scale;
  const context = canvas.getContext("2d");
  context.scale(scale, scale);
  context.strokeStyle = colour(`--line-${Math.max(state.heads.indexOf(head), 0)}`);
  context.lineWidth = Math.max(0.5, Math.min(1.2, size / units().queries.groups.length));
  for (const [opacity, lines] of Object.entries(smallLines(head))) {
    context.globalAlpha = Number(opacity) ** 0.75; // thin lines look fainter than they are
    context.beginPath();
    for (const [from, to] of lines) {
      context.moveTo(1, from * size);
      context.lineTo(size - 1, to * size);
    }
    context.stroke();
  }
}

/** A colour of the style sheet as the browser would draw it now. */
const probe = el("span", { hidden: "" });
document.body.append(probe);
function colour(name) {
  probe.style.color = `var(${name})`;
  return getComputedStyle(probe).color;
}
