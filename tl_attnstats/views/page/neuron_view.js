"use strict";

// How one weight comes about: the query, each key, their product, its sum before the softmax, and the weight.

const LINE = 15;
const MOST_KEYS = 48;
const STRIP = 160;
const LEVELS = 12;
const LABEL = 104;
const COLUMNS = {
  keys: LABEL,
  products: LABEL + STRIP + 12,
  score: LABEL + 2 * STRIP + 24,
  weight: LABEL + 2 * STRIP + 134,
};
const BARS = 90;
let shownNeurons = null; // what the last drawing showed, for pointing at it

/** The head and the token whose attention is drawn. */
function neuronPlace() {
  const place = focusOf();
  const token = place?.side === "queries" ? place.token : null;
  return { head: state.heads[0], query: token ?? stream().nQueries - 1 };
}

let neuronFrame = 0;
function drawNeurons() {
  cancelAnimationFrame(neuronFrame);
  neuronFrame = requestAnimationFrame(drawNeuronsNow);
}

async function drawNeuronsNow() {
  const one = stream();
  const { head, query } = neuronPlace();
  $("neuron-title").textContent = `Query and keys of ${one.names[head]}`;
  if (!one.vectors) {
    $("neuron-note").textContent = `Not shown here: ${one.no_vectors}.`;
    $("neuron-figure").replaceChildren();
    $("dimension").textContent = "";
    shownNeurons = null;
    return;
  }
  await one.unpackVectors();
  const q = one.vector("queries", head, query);
  const scale = one.vectors.scale[head];
  const rows = reached(one, head, query).map((key) => {
    const k = one.vector("keys", head, key);
    const products = k.map((value, at) => value * q[at]);
    return {
      key,
      k,
      products,
      score: scale * products.reduce((a, b) => a + b, 0),
      weight: one.weight(head, query, key),
    };
  });
  const left = one.reachable(query, head).length - rows.length;
  shownNeurons = { q, rows, scale, head, query };
  $("neuron-note").textContent =
    `“${labelOf(one.queries.tokens[query])}” (${query}) looks at each key: query × key, summed and scaled by ${scale.toPrecision(3)} (score), then the softmax (weight).` +
    ` Blue is positive, orange negative.${left ? ` The ${rows.length} largest weights of ${rows.length + left}.` : ""}` +
    ` Scores are within ${roundedUp(one.vectors.bound)}, because vectors are stored in ${one.vectors.bits} bits.`;
  const figure = neuronFigure(q, rows, query);
  $("neuron-figure").replaceChildren(figure);
  sayDimension(null);
}

/** A bound with one significant digit, which remains a bound. */
function roundedUp(bound) {
  const place = 10 ** Math.floor(Math.log10(bound));
  return Number((Math.ceil(bound / place) * place).toPrecision(1));
}

Stream.prototype.reachable = function (query, head) {
  const last = this.causal ? query : this.nKeys - 1;
  const keys = Array.from({ length: last + 1 }, (_, key) => key);
  return this.crosses ? keys : keys.filter((key) => Math.abs(query - key) <= this.reach[head]);
};

/** The keys that a query reaches, in order; of many, those with the largest weights. */
function reached(one, head, query) {
  const keys = one.reachable(query, head);
  const largest = [...keys].sort((a, b) => one.weight(head, query, b) - one.weight(head, query, a)).slice(0, MOST_KEYS);
  return keys.length > MOST_KEYS ? largest.sort((a, b) => a - b) : keys;
}

function neuronFigure(q, rows, query) {
  const top = 3.4 * LINE;
  const height = top + LINE * rows.length + 6;
  const width = COLUMNS.weight + BARS + 10;
  const picture = svg("svg", {
    id: "neurons",
    width,
    height,
    viewBox: `0 0 ${width} ${height}`,
    role: "img",
    "aria-label": "Query, keys, products, scores and weights",
  });
  const text = (x, y, content, anchor = "start", soft = true) =>
    svg("text", { x, y, "text-anchor": anchor, class: soft ? "soft" : "" }, content);
  const label = (token) => {
    const whole = Array.from(labelOf(token));
    return whole.length > 14 ? `${whole.slice(0, 13).join("")}…` : whole.join("");
  };
  picture.append(
    text(LABEL - 8, 1.75 * LINE, label(stream().queries.tokens[query]), "end", false),
    text(COLUMNS.keys, 0.8 * LINE, "query"),
    text(COLUMNS.keys, top - 6, "keys"),
    text(COLUMNS.products, top - 6, "query × key"),
    text(COLUMNS.score, top - 6, "score"),
    text(COLUMNS.weight, top - 6, "weight"),
    ...strips([q], COLUMNS.keys, LINE),
    ...strips(
      rows.map((row) => row.k),
      COLUMNS.keys,
      top,
    ),
    ...strips(
      rows.map((row) => row.products),
      COLUMNS.products,
      top,
    ),
  );
  const most = Math.max(...rows.map((row) => Math.abs(row.score)), 1e-9);
  rows.forEach((row, at) => {
    const y = top + at * LINE;
    const long = (Math.abs(row.score) / most) * (BARS - 42);
    picture.append(
      text(LABEL - 8, y + 0.75 * LINE, label(stream().keys.tokens[row.key]), "end", false),
      svg("rect", {
        x: COLUMNS.score,
        y: y + 3,
        width: long,
        height: LINE - 6,
        class: row.score < 0 ? "minus" : "plus",
      }),
      text(COLUMNS.score + long + 4, y + 0.75 * LINE, row.score.toFixed(2)),
      svg("rect", { x: COLUMNS.weight, y: y + 3, width: row.weight * (BARS - 36), height: LINE - 6, class: "plus" }),
      text(COLUMNS.weight + row.weight * (BARS - 36) + 4, y + 0.75 * LINE, rounded(row.weight)),
    );
  });
  picture.addEventListener("pointermove", (event) => {
    const box = picture.getBoundingClientRect();
    sayDimension(pointedAt(event.clientX - box.left, event.clientY - box.top, top));
  });
  picture.addEventListener("pointerleave", () => sayDimension(null));
  return picture;
}

/** Rows of vectors as strips of cells, white at zero: one path for each sign and level, so that few elements are drawn. */
function strips(vectors, left, top) {
  if (!vectors.length) return [];
  const cell = STRIP / vectors[0].length;
  const most = Math.max(...vectors.flat().map(Math.abs), 1e-9);
  const paths = new Map();
  vectors.forEach((vector, row) => {
    vector.forEach((value, at) => {
      const level = Math.round((Math.abs(value) / most) * LEVELS) * Math.sign(value);
      if (!level) return;
      const x = (left + at * cell).toFixed(2);
      const place = `M${x} ${(top + row * LINE + 1).toFixed(2)}h${cell.toFixed(2)}v${LINE - 2}h-${cell.toFixed(2)}z`;
      paths.set(level, (paths.get(level) ?? "") + place);
    });
  });
  const frame = svg("rect", {
    x: left - 0.5,
    y: top + 0.5,
    width: STRIP + 1,
    height: LINE * vectors.length - 1,
    class: "frame",
  });
  const drawn = [...paths].map(([level, d]) =>
    svg("path", { d, class: level < 0 ? "minus" : "plus", "fill-opacity": (Math.abs(level) / LEVELS).toFixed(2) }),
  );
  return [frame, ...drawn];
}

function pointedAt(x, y, top) {
  const row = Math.floor((y - top) / LINE);
  const start = x >= COLUMNS.products ? COLUMNS.products : COLUMNS.keys;
  const dimension = Math.floor((x - start) / (STRIP / shownNeurons.q.length));
  if (row < 0 || row >= shownNeurons.rows.length) return null;
  return { row, dimension: dimension >= 0 && dimension < shownNeurons.q.length ? dimension : null };
}

/** What a row of the figure says in numbers: a dimension that is pointed at, or the ones that count most. */
function sayDimension(place) {
  if (!shownNeurons) return;
  const { q, rows, scale } = shownNeurons;
  const row = rows[place?.row ?? largestRow(rows)];
  if (!row) return;
  const key = `“${labelOf(stream().keys.tokens[row.key])}” (${row.key})`;
  const term = (at) =>
    `dimension ${at}: ${q[at].toFixed(2)} × ${row.k[at].toFixed(2)} = ${row.products[at].toFixed(2)}`;
  if (place?.dimension != null) {
    $("dimension").textContent = `${key}, ${term(place.dimension)}`;
    return;
  }
  const order = row.products.map((_, at) => at).sort((a, b) => Math.abs(row.products[b]) - Math.abs(row.products[a]));
  const terms = order.slice(0, 3).map((at) => `${at} (${(scale * row.products[at]).toFixed(2)})`);
  $("dimension").textContent =
    `${key}: score ${row.score.toFixed(2)}, weight ${rounded(row.weight)}; most of it from dimensions ${terms.join(", ")}.`;
}

const largestRow = (rows) => rows.reduce((best, row, at) => (row.weight > rows[best].weight ? at : best), 0);
