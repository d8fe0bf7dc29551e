"use strict";

const card = document.getElementById("card");

/** The elements of a head's card. */
function cardOf(head) {
  const layer = data.layers[Math.floor(head / data.heads.length)];
  const within = data.heads[head % data.heads.length];
  const step = (by) => {
    const to = data.names[head + by];
    return to ? el("a", { href: `#${to}`, rel: by < 0 ? "prev" : "next" }, by < 0 ? `← ${to}` : `${to} →`) : "";
  };
  const close = el("button", { type: "button", class: "close" }, "Close");
  close.addEventListener("click", () => card.close());
  const title = el("h1", { id: "card-title", tabindex: "-1" }, data.names[head]);
  const subtitle = el("p", { class: "lead" }, `Layer ${layer}, head ${within} of `, el("bdi", {}, data.model));
  return [
    el("nav", { "aria-label": "Heads" }, step(-1), step(1), close),
    el("header", {}, title, ...characterOf(head), subtitle),
    ...numbersOf(head),
    ...exemplarsOf(head),
    ...typicalOf(head),
    el("div", { class: "panels" }, ...profilesOf(head), ...patternOf(head), ...barsOf(head)),
    ...everythingOf(head),
  ];
}

/** What the head is, in a sentence. Each part links to its number in the card. */
function characterOf(head) {
  const parts = data.traits[head].flatMap(([said, name, at], i) => {
    const text = i ? said : said[0].toUpperCase() + said.slice(1);
    const link = el("a", { href: `#${data.names[head]}/${name}-${at}` }, text);
    link.addEventListener("click", () => showValue(`${name}-${at}`)); // again, where the URL stays the same
    return i ? ["; ", link] : [link];
  });
  return parts.length ? [el("p", { class: "character", dir: "auto" }, ...parts, ".")] : [];
}

/** Let links within the card find the cell of a value. */
function findable(cell, statistic, at) {
  cell.id = `${statistic.name}-${at}`;
  cell.tabIndex = -1;
}

function showValue(id) {
  const cell = card.querySelector(`#${CSS.escape(id)}`);
  cell?.scrollIntoView({ block: "center" });
  cell?.focus({ preventScroll: true });
  return Boolean(cell);
}

function row(statistic, at, head, name) {
  const rank = statistic.ranks[at][head];
  const ranked = rank === null ? "–" : `${rank} / ${countOf(statistic, at)}`;
  return [
    { key: name, cell: el("th", { scope: "row" }, name, " ", el("small", {}, statistic.unit)) },
    headCell(statistic, at, head),
    { key: rank, cell: el("td", { class: "value" }, ranked) },
    valueCell(statistic.means[at]),
  ];
}

const TITLES = ["statistic", "value, with error", "rank", "mean over heads"];

function numbersOf(head) {
  const rows = columns.map(([statistic, at]) => {
    const cells = row(statistic, at, head, named(statistic, statistic.labels[at]));
    if (!statistic.dim) findable(cells[1].cell, statistic, at); // the others are found among the bars
    return cells;
  });
  return rows.length ? [section("In numbers", "", sortable("In numbers", TITLES, rows))] : [];
}

function everythingOf(head) {
  const details = el("details", {}, el("summary", {}, "All values"));
  const build = () => {
    const rows = data.statistics.flatMap((statistic) =>
      statistic.labels.map((label, at) => row(statistic, at, head, `${readable(statistic.name)} ${label}`.trim())),
    );
    details.append(sortable("All values", TITLES, rows));
  };
  details.addEventListener("toggle", build, { once: true });
  return data.statistics.length ? [details] : [];
}

/**
 * Bars of all statistics with the same labels, side by side with the baseline of the corpus. Labels are sorted by how
 * much the first statistic exceeds the baseline.
 */
function barsOf(head) {
  const dims = new Set(data.statistics.map((statistic) => statistic.dim).filter((dim) => dim && dim !== "offset"));
  return [...dims].map((dim) => {
    const statistics = data.statistics.filter((statistic) => statistic.dim === dim);
    const series = statistics.map((statistic) => ({
      statistic,
      title: statistic.title,
      values: statistic.values.map((values) => values[head]),
      errors: statistic.values.map((_, at) => errorOf(statistic, at, head)),
      doubtful: statistic.values.map((_, at) => isDoubtful(statistic, at, head)),
    }));
    const { baseline, baseline_errors } = statistics.find((statistic) => statistic.baseline) ?? {};
    if (baseline)
      series.push({
        title: "in the corpus",
        values: baseline,
        errors: baseline_errors ?? [],
        doubtful: [],
        corpus: true,
      });
    const longest = scaleOf(series.map(({ values }) => values))[1];
    const beyond = statistics[0].labels.map((_, at) => (series[0].values[at] ?? 0) - (baseline?.[at] ?? 0));
    const order = [...beyond.keys()].sort((a, b) => beyond[b] - beyond[a]);
    const rows = order.map((at) => [
      { key: String(statistics[0].labels[at]), cell: el("th", { scope: "row" }, String(statistics[0].labels[at])) },
      ...series.map((one) => barCell(one, at, longest)),
    ]);
    const titles = [dim, ...series.map(({ title }) => title)];
    const name = statistics.map(({ title }) => title).join(", ");
    return el(
      "div",
      { class: series.length > 2 ? "panel bars wide" : "panel bars" },
      el("h3", {}, `By ${dim}`),
      sortable(name, titles, rows),
    );
  });
}

function barCell(series, at, longest) {
  const made = valueCell(series.values[at], {
    error: series.errors[at],
    isBound: series.statistic?.is_bound,
    doubtful: series.doubtful[at],
  });
  const bar = el("div", { class: series.corpus ? "bar corpus" : "bar" });
  bar.style.width = `${longest > 0 ? (100 * Math.max(0, series.values[at] ?? 0)) / longest : 0}%`;
  made.cell.append(bar);
  if (!series.corpus) findable(made.cell, series.statistic, at);
  return made;
}

const [WIDTH, HEIGHT] = [340, 160];

/** Position of an offset on a logarithmic axis: 0, 1, 3 and 7 are equally spaced, in both directions. */
const stretched = (offset) => Math.sign(offset) * Math.log2(1 + Math.abs(offset));

/** Attention by offset as bars, and the mean over heads as a line. */
function profilesOf(head) {
  return data.statistics
    .filter((statistic) => statistic.dim === "offset")
    .map((statistic) => {
      const values = statistic.values.map((of) => of[head] ?? 0);
      const high = Math.max(...values, ...statistic.means) || 1;
      const [first, last] = [statistic.labels[0], statistic.labels.at(-1)];
      // A bar reaches to the start of the next one, because octaves cover several offsets. The last bar is two offsets wide.
      const edges = [...statistic.labels, last + 2].map((offset) => stretched(offset - 0.5));
      const scale = WIDTH / (edges.at(-1) - edges[0]);
      const left = (at) => (edges[at] - edges[0]) * scale;
      const middle = (at) => (left(at) + left(at + 1)) / 2;
      const y = (value) => HEIGHT - (HEIGHT * value) / high;
      const bars = values.map((value, at) =>
        svg(
          "rect",
          {
            class: "offset",
            x: left(at),
            y: y(value),
            width: (left(at + 1) - left(at)) * 0.8,
            height: HEIGHT - y(value),
          },
          svg("title", {}, `offset ${statistic.labels[at]}: ${withError(statistic, at, head)}`),
        ),
      );
      const points = statistic.means.map((mean, at) => `${middle(at)},${y(mean ?? 0)}`).join(" ");
      const ends = first < 0 ? [first, last] : [last]; // these cover all offsets beyond
      const shown = [...ends];
      const free = (offset) =>
        shown.every((other) => Math.abs(middle(place(statistic, offset)) - middle(place(statistic, other))) > 30);
      const powers = [0, 1, -1, ...statistic.labels.filter((offset) => Number.isInteger(Math.log2(Math.abs(offset))))];
      for (const offset of powers) if (place(statistic, offset) >= 0 && free(offset)) shown.push(offset);
      const ticks = shown.map((offset) =>
        svg(
          "text",
          { x: middle(place(statistic, offset)), y: HEIGHT + 18 },
          offset === last ? `≥ ${last}` : ends.includes(offset) ? `≤ ${offset}` : String(offset),
        ),
      );
      const axis = svg("line", { x1: 0, x2: WIDTH, y1: HEIGHT, y2: HEIGHT, class: "axis" });
      const picture = svg(
        "svg",
        { viewBox: `-16 -14 ${WIDTH + 32} ${HEIGHT + 38}`, role: "img", "aria-label": statistic.title },
        ...bars,
        svg("polyline", { points, class: "mean" }),
        axis,
        ...ticks,
        svg("text", { x: WIDTH, y: -2, class: "end" }, `up to ${number(high)}`),
      );
      const note = el(
        "p",
        { class: "note" },
        "How many tokens back the head attends. The line is the mean over heads. The axis is logarithmic.",
      );
      return el("div", { class: "panel" }, el("h3", {}, statistic.title), note, picture);
    });
}

const CELL = 24;

function patternOf(head) {
  const pattern = data.pattern?.[head];
  if (!pattern) return [];
  const [low, high] = scaleOf(pattern);
  const cells = pattern.flatMap((values, query) =>
    values.flatMap((value, key) =>
      value === null
        ? []
        : svg(
            "rect",
            { x: key * CELL, y: query * CELL, width: CELL - 1, height: CELL - 1, fill: colour(value, low, high) },
            svg("title", {}, `from position ${query} to ${key}: ${number(value)}`),
          ),
    ),
  );
  const size = CELL * pattern.length;
  const numbers = pattern.flatMap((_, at) => [
    svg("text", { x: (at + 0.5) * CELL, y: -6 }, String(at)),
    svg("text", { x: -8, y: (at + 0.66) * CELL, class: "end" }, String(at)),
  ]);
  const picture = svg(
    "svg",
    { viewBox: `-26 -22 ${size + 30} ${size + 26}`, role: "img", "aria-label": "Mean pattern", class: "pattern" },
    ...cells,
    ...numbers,
  );
  const note = el(
    "p",
    { class: "note" },
    "Over the first positions: from (down) to (across). Null tokens are left out.",
  );
  return [
    el(
      "div",
      { class: "panel" },
      el("h3", {}, "mean pattern"),
      note,
      el("figure", {}, picture, colourBar(low, high, "share")),
    ),
  ];
}

// ---- the URL fragment names the open head, and maybe one of its values: #L5H6/sink_share-0 ----

const PAGE_TITLE = document.title;

const fragment = () => location.hash.slice(1).split("/");

function route() {
  const [name, value] = fragment();
  const head = data.names.indexOf(name);
  if (head < 0) {
    card.close();
    return;
  }
  card.replaceChildren(...cardOf(head));
  if (!card.open) card.showModal();
  card.scrollTop = 0;
  if (!value || !showValue(value)) document.getElementById("card-title").focus();
  document.title = `${data.names[head]} – ${PAGE_TITLE}`;
}

card.addEventListener("close", () => {
  if (card.open) return; // reopened before this event fired
  document.title = PAGE_TITLE;
  if (data.names.includes(fragment()[0])) history.pushState(null, "", location.pathname + location.search);
});
card.addEventListener("click", (event) => {
  if (event.target === card) card.close(); // a click outside the card
});

addEventListener("hashchange", route);
route();
