"use strict";

// ---- exemplars, and the whole pattern of each ----

function exemplarsOf(head) {
  if (!data.exemplars) return [];
  const items = data.exemplars.heads[head].map((exemplar) => exemplarItem(head, exemplar));
  const list = items.length ? el("ol", { class: "exemplars" }, ...items) : el("p", {}, "None.");
  return [
    el("section", {}, el("h2", {}, "Exemplars"), legend("The largest weight of each sentence: "), list, ...leftOut()),
  ];
}

/** Random rows of each bin of the largest weight: what is typical, not only what is extreme. */
function typicalOf(head) {
  if (!data.typical) return [];
  const counts = data.typical.rows[head];
  const total = counts.reduce((sum, count) => sum + count, 0);
  const bins = counts.flatMap((count, bin) => {
    if (!count) return [];
    const [low, high] = [data.typical.edges[bin], data.typical.edges[bin + 1] ?? 1].map((edge) => edge.toFixed(1));
    const share = `${low} to ${high}: ${number((100 * count) / total)}% of rows`;
    const below = counts.slice(0, bin).reduce((sum, other) => sum + other, 0);
    const quantiles = `quantiles ${(below / total).toFixed(2)} to ${((below + count) / total).toFixed(2)}`;
    const items = data.typical.heads[head]
      .filter((exemplar) => exemplar[5] === bin)
      .map((exemplar) => exemplarItem(head, exemplar));
    return [
      el("li", {}, el("h3", {}, share, " ", el("small", {}, quantiles)), el("ul", { class: "exemplars" }, ...items)),
    ];
  });
  const note = legend("Random rows, a few for each range of the row's largest weight: ");
  const list = el("ol", { class: "typical" }, ...(bins.length ? bins : [el("li", {}, "None.")]));
  return [el("section", {}, el("h2", {}, "Typical rows"), note, list)];
}

const legend = (text) =>
  el(
    "p",
    { class: "note" },
    text,
    el("span", { class: "query" }, data.sides[0]),
    " → ",
    el("span", { class: "key" }, data.sides[1]),
  );

const leftOut = () =>
  data.patterns?.said ? [el("p", { class: "note" }, `Whole patterns: ${data.patterns.said}`)] : [];

function exemplarItem(head, [weight, sentence, stretches, query]) {
  const line = markedText(data.sentences[sentence], stretches);
  const body = el("div", {}, line, ...wholePattern(head, sentence, query));
  return el("li", {}, el("span", { class: "weight" }, number(weight)), body);
}

function markedText(text, stretches) {
  const characters = Array.from(text); // Python counts code points, JavaScript UTF-16 units
  const line = el("p", { dir: "auto" });
  let shown = 0;
  for (let i = 0; i < stretches.length; i += 3) {
    const [start, end, marks] = stretches.slice(i, i + 3);
    if (start > shown) line.append(shown ? " … " : "… ");
    const piece = characters.slice(start, end).join("");
    const classes = [marks & 1 ? "query" : "", marks & 2 ? "key" : ""].filter(Boolean);
    line.append(classes.length ? el("span", { class: classes.join(" ") }, piece) : piece);
    shown = end;
  }
  if (shown < characters.length) line.append(" …");
  return line;
}

// ---- whole patterns: weights of all heads and sentences in one compressed text, in 8 bits ----

const LEVELS = 255;
const TOLD = 3; // tokens that are named for the one pointed at

/** Where the pattern of a head on a sentence begins among all weights. */
function startsOf(patterns) {
  let start = 0;
  return patterns.heads.map(
    (sentences) =>
      new Map(
        sentences.map((sentence) => {
          const [here, n] = [start, patterns.tokens[sentence].length];
          start += patterns.causal ? (n * (n + 1)) / 2 : n * n;
          return [sentence, here];
        }),
      ),
  );
}
const starts = data.patterns ? startsOf(data.patterns) : [];

let unpacked = null;

/** All weights, unpacked when they are first needed. */
function unpack() {
  const packed = Uint8Array.from(atob(data.patterns.weights), (character) => character.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer().then((buffer) => new Uint8Array(buffer));
}

/** The whole pattern on a sentence, closed at first; nothing if it is not in the page. */
function wholePattern(head, sentence, query) {
  const start = starts[head]?.get(sentence);
  if (start === undefined) return [];
  const details = el("details", { class: "whole" }, el("summary", {}, "whole pattern"));
  details.addEventListener(
    "toggle",
    async () => {
      unpacked ??= unpack();
      const weights = await unpacked;
      const n = data.patterns.tokens[sentence].length;
      const weight = (i, j) => {
        if (!data.patterns.causal) return weights[start + i * n + j] / LEVELS;
        return j > i ? 0 : weights[start + (i * (i + 1)) / 2 + j] / LEVELS;
      };
      details.append(...patternText(sentence, weight, query));
    },
    { once: true },
  );
  return [details];
}

/** The tokens of a sentence: pointing at one shades those that it looks at, or that look at it. */
function patternText(sentence, weight, query) {
  const names = data.patterns.tokens[sentence];
  const nulls = new Set(data.patterns.null[sentence]);
  const ways = ["what it looks at", "what looks at it"];
  const way = el("select", { "aria-label": "direction" }, ...ways.map((text, i) => el("option", { value: i }, text)));
  const tokens = names.map((name, i) =>
    el("button", { type: "button", class: nulls.has(i) ? "token null" : "token" }, shownToken(name)),
  );
  const told = el("p", { class: "told", "aria-live": "polite" });
  let chosen = query;
  const show = () => {
    const shares = names.map((_, i) => (way.value === "0" ? weight(chosen, i) : weight(i, chosen)));
    tokens.forEach((token, i) => {
      token.style.setProperty("--weight", shares[i]);
      token.title = `${shownToken(names[i])}: ${inEightBits(shares[i])}`;
      token.setAttribute("aria-pressed", String(i === chosen));
    });
    const top = [...shares.keys()]
      .filter((i) => shares[i] > 0)
      .sort((a, b) => shares[b] - shares[a])
      .slice(0, TOLD);
    const list = top.map((i) => `“${shownToken(names[i])}” ${inEightBits(shares[i])}`).join(", ");
    told.textContent = `“${shownToken(names[chosen])}” ${way.value === "0" ? "looks at" : "is looked at by"} ${list || "nothing"}.`;
  };
  tokens.forEach((token, i) => {
    for (const type of ["pointerenter", "focus", "click"])
      token.addEventListener(type, () => {
        chosen = i;
        show();
      });
  });
  way.addEventListener("change", show);
  const line = el("p", { class: "tokens", dir: "auto", role: "group", "aria-label": "tokens" }, ...tokens);
  show();
  const note = el(
    "p",
    { class: "note" },
    "Weights to ±0.002. Null tokens are in italics; this head's weights on them are shown, too.",
  );
  return [el("p", { class: "choices" }, way), roving(line, 1), told, note];
}

const inEightBits = (share) => toError(share, 0.5 / LEVELS);
const shownToken = (name) => name.trim() || "␣";
