"use strict";

// The tokens of the text, with lines or as a paragraph. Point at one, or move to one: its partners are shaded.

const ROW = 22; // pixels
const MOST_LINES = 3000;
const said = $("said");
let tokens = { queries: [], keys: [] };

function buildTokens() {
  $("layout").value = state.layout;
  const { queries, keys } = units();
  if (state.layout === "lines") {
    const left = side("queries", queries, "Tokens that look");
    const right = side("keys", keys, "Tokens that are looked at");
    const height = ROW * Math.max(queries.groups.length, keys.groups.length);
    const picture = svg("svg", { id: "lines", height, role: "img", "aria-label": "A line for each weight" });
    $("tokens").replaceChildren(el("div", { class: "lines" }, left, picture, right));
    tokens = { queries: [...left.children], keys: [...right.children] };
  } else if (stream().crosses) {
    const [above, below] = [
      paragraph("queries", queries, "Tokens that look"),
      paragraph("keys", keys, "Tokens that are looked at"),
    ];
    $("tokens").replaceChildren(above, below);
    tokens = { queries: [...above.children], keys: [...below.children] };
  } else {
    const text = paragraph(null, queries, "The text");
    $("tokens").replaceChildren(text);
    tokens = { queries: [...text.children], keys: [...text.children] };
  }
  shade();
}

function side(name, { groups, texts }, label) {
  const buttons = groups.map((group, unit) => token(name, group[0], unit, el("bdi", {}, labelOf(texts[unit]))));
  return el("div", { class: `side ${name}`, role: "group", "aria-label": label }, ...buttons);
}

function paragraph(name, { groups, texts }, label) {
  const buttons = groups.map((group, unit) => token(name, group[0], unit, texts[unit] || "∅"));
  return el("p", { class: "paragraph", dir: "auto", role: "group", "aria-label": label }, ...buttons);
}

function token(fixed, first, unit, label) {
  // In a paragraph not a button, which would not break between lines as text does.
  const attributes = { class: "token", tabindex: unit ? "-1" : "0" };
  const button =
    state.layout === "lines"
      ? el("button", { type: "button", ...attributes }, label)
      : el("span", { role: "button", ...attributes }, label);
  const { parts } = stream()[fixed ?? "queries"];
  if (parts && first && parts[first] !== parts[first - 1]) button.classList.add("begins");
  const place = () => ({ side: fixed ?? sideOf(state.direction), token: first });
  // In a paragraph both sides are one text: beside a token that is kept, another one is its partner.
  const partner = () => (!fixed && state.pinned ? { side: otherSide(state.pinned.side), token: first } : place());
  const enter = () => hover(partner());
  button.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && enter());
  button.addEventListener("pointerleave", () => hover(null));
  button.addEventListener("focus", enter);
  button.addEventListener("blur", () => hover(null));
  button.addEventListener("click", () => pin(place()));
  button.addEventListener("keydown", (event) => moveInText(event, button));
  return button;
}

function moveInText(event, button) {
  const across = { queries: tokens.keys, keys: tokens.queries };
  const name = tokens.queries.includes(button) ? "queries" : "keys";
  const row = tokens[name];
  const at = row.indexOf(button);
  const lines = state.layout === "lines";
  const next = {
    ArrowDown: row[at + 1],
    ArrowUp: row[at - 1],
    ArrowRight: lines ? across[name][at] : row[at + 1],
    ArrowLeft: lines ? across[name][at] : row[at - 1],
    Home: row[0],
    End: row.at(-1),
  }[event.key];
  if (event.key === "Escape" && state.pinned) pin(state.pinned);
  if (state.layout === "text" && ["Enter", " "].includes(event.key)) {
    event.preventDefault();
    button.click();
  }
  if (!next) return;
  event.preventDefault();
  for (const other of [...tokens.queries, ...tokens.keys]) other.tabIndex = -1;
  for (const first of [tokens.queries[0], tokens.keys[0]]) first.tabIndex = 0;
  tokens[tokens.queries.includes(next) ? "queries" : "keys"][0].tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
}

function hover(place) {
  state.hovered = place;
  shade();
  drawNeurons();
}

const otherSide = (side) => (side === "queries" ? "keys" : "queries");

/** Keep a token, or let it go again. */
function pin(place) {
  const again = state.pinned && unitOf(state.pinned) === unitOf(place) && state.pinned.side === place.side;
  state.pinned = again ? null : place;
  state.direction = place.side === "queries" ? "from" : "to";
  changed("pinned");
}

/** Where the active token looks: the pinned one, if there is one, and the other one is asked about. */
function focusOf() {
  return state.pinned ?? state.hovered;
}

function shade() {
  const place = focusOf();
  const { queries, keys } = units();
  const other = otherSide(place?.side);
  const nullKeys = stream().hidden(state.heads[0], state.words);
  for (const name of ["queries", "keys"]) {
    tokens[name].forEach((button, unit) => {
      button.classList.toggle("null", nullKeys[unit] && (name === "keys" || !stream().crosses));
      button.classList.remove("active", "pinned");
      button.style.background = "";
      button.shades = [];
      button.querySelector(".weight")?.remove();
      button.setAttribute("aria-pressed", "false");
    });
  }
  if (place) {
    const own = tokens[place.side][unitOf(place)];
    own.classList.add(state.pinned ? "pinned" : "active");
    if (state.pinned) own.setAttribute("aria-pressed", "true");
    state.heads.forEach((head, at) => {
      for (const [unit, weight, strength] of partners(head, place)) {
        const button = tokens[other][unit];
        button.shades.push([at, strength]);
        if (state.layout === "lines" && state.heads.length === 1)
          button.append(el("span", { class: "weight" }, rounded(weight)));
      }
    });
    for (const button of tokens[other]) if (button.shades.length) button.style.background = stripes(button.shades);
  }
  if (state.pinned && state.hovered) tokens[state.hovered.side][unitOf(state.hovered)]?.classList.add("active");
  if (state.layout === "lines") drawLines(place);
  say(queries, keys);
}

/** One stripe for each head, of its colour, as opaque as its weight. */
function stripes(shades) {
  const n = state.heads.length;
  const stops = state.heads.map((_, at) => {
    const strength = shades.find(([head]) => head === at)?.[1] ?? 0;
    const shown = `color-mix(in srgb, var(--fill-${at}) ${(100 * Math.min(1, strength)).toFixed(1)}%, transparent)`;
    return `${shown} ${(100 * at) / n}% ${(100 * (at + 1)) / n}%`;
  });
  return `linear-gradient(to bottom, ${stops.join(", ")})`;
}

function drawLines(place) {
  const picture = $("lines");
  const width = picture.clientWidth || 100;
  picture.setAttribute("viewBox", `0 0 ${width} ${picture.getAttribute("height")}`);
  const unit = place ? unitOf(place) : null;
  const only = !place ? {} : place.side === "queries" ? { rows: [unit] } : { columns: [unit] };
  const every = state.heads.flatMap((head, at) => visible(head, only).map((line) => [...line, at]));
  every.sort((a, b) => a[3] - b[3]);
  const spread = (at) => ((at + 0.5) / state.heads.length - 0.5) * (state.heads.length > 1 ? 10 : 0);
  const drawn = every.slice(-MOST_LINES).map(([query, key, , strength, at]) =>
    svg("line", {
      x1: 2,
      x2: width - 2,
      y1: (query + 0.5) * ROW + spread(at),
      y2: (key + 0.5) * ROW + spread(at),
      "stroke-width": place ? 2 : 1.4,
      style: `stroke: var(--line-${at}); stroke-opacity: ${Math.min(1, strength).toFixed(3)}`,
    }),
  );
  picture.replaceChildren(...drawn);
}

/** Why nothing is shaded. */
function nothing(head, place) {
  if (place.side === "keys" || state.sinks !== "hide") return "nothing that is shown";
  const width = units().keys.groups.length;
  const row = stream()
    .matrix(head, state.words)
    .subarray(unitOf(place) * width, (unitOf(place) + 1) * width);
  const hidden = stream().hidden(head, state.words);
  return `nothing that is shown (null tokens and sinks, which are hidden, get ${rounded(row.reduce((sum, weight, key) => sum + (hidden[key] ? weight : 0), 0))})`;
}

// ---- in words, for screen readers and for exact numbers ----

function say(queries, keys) {
  const place = focusOf();
  if (!place) {
    said.replaceChildren("Point at a token, or move to one with Tab and the arrow keys.");
    return;
  }
  const named = (name, unit) =>
    el("strong", {}, el("bdi", {}, `“${labelOf((name === "queries" ? queries : keys).texts[unit])}”`), ` (${unit})`);
  const other = otherSide(place.side);
  const unit = unitOf(place);
  if (state.pinned && state.hovered && state.hovered.side === other) {
    const partner = unitOf(state.hovered);
    const [query, key] = place.side === "queries" ? [unit, partner] : [partner, unit];
    const width = keys.groups.length;
    const weights = state.heads.map(
      (head) => `${stream().names[head]} ${rounded(stream().matrix(head, state.words)[query * width + key])}`,
    );
    said.replaceChildren(named("queries", query), " looks at ", named("keys", key), `: ${weights.join(", ")}`);
    return;
  }
  const parts = [named(place.side, unit), place.side === "queries" ? " looks at " : " is looked at by "];
  state.heads.forEach((head, at) => {
    const found = partners(head, place).sort((a, b) => b[1] - a[1]);
    if (state.heads.length > 1) {
      parts.push(
        at ? "; in " : "– in ",
        el("strong", { style: `color: var(--line-${at})` }, stream().names[head]),
        ": ",
      );
    }
    parts.push(
      ...found
        .slice(0, 5)
        .flatMap(([partner, weight], rank) => [
          rank ? ", " : "",
          el("bdi", {}, labelOf(units()[other].texts[partner])),
          ` ${rounded(weight)}`,
        ]),
    );
    if (!found.length) parts.push(nothing(head, place));
    else if (found.length > 5) parts.push(`, and ${found.length - 5} more`);
  });
  said.replaceChildren(...parts, ".");
}
