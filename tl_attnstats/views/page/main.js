"use strict";

// Controls, and what is drawn again when something changes.

function changed(what) {
  writeFragment();
  $("direction").value = state.direction;
  $("stream").value = state.stream;
  offer();
  chips();
  if (what === "heads") markThumbs();
  if (what === "units" || what === "stream") buildTokens();
  else shade();
  if (what === "stream") buildGrid();
  else drawThumbs();
  drawNeurons();
}

function chips() {
  $("head-title").textContent = state.heads.length > 1 ? "Heads" : "Head";
  const made = state.heads.map((head, at) => {
    const name = stream().names[head];
    const chip = el(
      "button",
      { type: "button", class: "chip", title: state.heads.length > 1 ? `Leave out ${name}` : name },
      name,
    );
    chip.style.setProperty("--own", `var(--line-${at})`);
    chip.addEventListener("click", () => chooseHead(head, true));
    return chip;
  });
  $("chips").replaceChildren(...made);
  describe();
}

/** What statistics say of the heads, and a button for the numbers. */
function describe() {
  const { cards, names } = stream();
  const known = cards ? state.heads.map((head) => names[head]).filter((name) => cards[name]) : [];
  const lines = known.map((name) => {
    const open = el("button", { type: "button", class: "plain" }, `card of ${name}`);
    open.addEventListener("click", () => openCard(name));
    return el("p", { class: "note" }, cards[name].name || "nothing stands out", " ", open);
  });
  $("characters").replaceChildren(...lines);
}

function openCard(name) {
  const { said, rows } = stream().cards[name];
  const close = el("button", { type: "button", class: "plain save" }, "Close");
  close.addEventListener("click", () => $("card").close());
  const table = rows.map(([what, value]) => el("tr", {}, el("th", { scope: "row" }, what), el("td", {}, value)));
  $("card").replaceChildren(
    el("header", {}, el("h2", { id: "card-title" }, name), close),
    el("p", {}, said || "Nothing stands out against its baseline."),
    el("table", {}, el("tbody", {}, ...table)),
  );
  $("card").showModal();
}

const PARTS = {
  all: "all",
  within: "within parts",
  across: "across parts",
  "0>0": "first → first",
  "0>1": "first → second",
  "1>0": "second → first",
  "1>1": "second → second",
};

/** Switches that only some streams have use for. */
function offer() {
  $("words-choice").hidden = !stream().hasWords;
  $("parts-choice").hidden = !stream().queries.parts;
  if (!stream().queries.parts) state.parts = $("parts").value = "all";
}

function choice(id, read, what) {
  $(id).addEventListener("change", (event) => {
    read(event.target);
    changed(what);
  });
}

function controls() {
  for (const [at, one] of streams.entries())
    $("stream").append(el("option", { value: at }, one.name === "cross" ? "cross: decoder to encoder" : one.name));
  for (const [value, name] of Object.entries(PARTS)) $("parts").append(el("option", { value }, name));
  $("stream-choice").hidden = streams.length < 2;
  choice("stream", (input) => chooseStream(Number(input.value)), "stream");
  choice("direction", (input) => chooseDirection(input.value));
  choice("units", (input) => (state.words = input.value === "words"), "units");
  choice("sinks", (input) => (state.sinks = input.value));
  choice("parts", (input) => (state.parts = input.value));
  choice("bright", (input) => (state.bright = input.checked));
  choice("layout", (input) => (state.layout = input.value), "units");
  $("least").addEventListener("input", (event) => {
    state.least = Number(event.target.value);
    showLeast();
    changed();
  });
  $("theme").addEventListener("change", (event) => {
    document.documentElement.style.colorScheme = event.target.value;
    changed();
  });
  for (const button of document.querySelectorAll(".save"))
    button.addEventListener("click", () => saveView(button.dataset.view));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawThumbs);
  addEventListener("hashchange", () => readFragment() && changed("stream"));
  addEventListener("resize", () => shade());
}

function chooseStream(at) {
  state.stream = at;
  state.heads = [0];
  state.pinned = state.hovered = null;
}

/** The kept token stays, on the other side, where both sides are one text. */
function chooseDirection(direction) {
  state.direction = direction;
  if (state.pinned) state.pinned = stream().crosses ? null : { side: sideOf(direction), token: state.pinned.token };
}

function showLeast() {
  $("least").value = state.least;
  $("least-said").textContent = state.least.toFixed(2);
}

async function start() {
  const [first] = streams;
  const n = Math.max(first.nQueries, first.nKeys);
  state.layout = n > LONG ? "text" : "lines";
  state.bright = $("bright").checked = n > 128;
  await Promise.all(streams.map((one) => one.unpack()));
  controls(); // only now, because everything that they draw needs the weights
  showLeast();
  readFragment();
  const bound = Math.max(...streams.map((one) => one.bound));
  $("precision").textContent =
    `Weights are stored in 8 bits: each is within 1/510 of the largest weight of its row, so within ${bound.toFixed(4)}, before rounding.`;
  $("stream").value = state.stream;
  chips();
  offer();
  buildTokens();
  buildGrid();
  $("direction").value = state.direction;
  drawNeurons();
  document.documentElement.dataset.ready = "";
}

start();
