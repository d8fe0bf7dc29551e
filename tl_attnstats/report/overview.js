"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const byName = new Map(data.statistics.map((statistic) => [statistic.name, statistic]));
const tip = document.getElementById("tip");

// ---- elements ----

/** Create an element. String children become text, never markup, because they may come from a corpus. */
function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function section(title, note, ...children) {
  const notes = note ? [el("p", { class: "note" }, note)] : [];
  return el("section", {}, el("h2", {}, title), ...notes, ...children);
}

/** A container that scrolls content wider than the screen, also with the keyboard. */
function scrolling(name, ...children) {
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": name }, ...children);
}

// ---- words and numbers ----

const readable = (name) => name.replaceAll("_", " ");
const named = (statistic, label) => (label === "" ? statistic.title : `${statistic.title}: ${label}`);
const headLink = (head) => el("a", { href: `#${data.names[head]}` }, data.names[head]);
const isDoubtful = (statistic, at, head) => statistic.doubtful[at].includes(head);
const countOf = (statistic, at) => statistic.values[at].filter((value) => value !== null).length;

const errorOf = (statistic, at, head) => statistic.errors?.[at][head] ?? null;
const shownOf = (statistic, at, head) => toError(statistic.values[at][head], errorOf(statistic, at, head));

function withError(statistic, at, head) {
  const error = errorText(errorOf(statistic, at, head), statistic.is_bound);
  return shownOf(statistic, at, head) + (statistic.is_bound && error ? ` (${error})` : ` ${error}`).trimEnd();
}

/** Number of characters before the decimal point, to align the points in a column. */
const integers = (text) => text.split(".")[0].length;
const widest = (statistic, at) => Math.max(...data.names.map((_, head) => integers(shownOf(statistic, at, head))));

/** A number with its error, and a mark if it is doubtful. */
function valueCell(value, { error = null, isBound = false, doubtful = false, width = 0 } = {}) {
  const text = toError(value, error);
  const cell = el(
    "td",
    { class: "value" },
    el("span", {}, "\u2007".repeat(Math.max(0, width - integers(text))) + text),
  );
  if (error !== null) cell.append(" ", el("small", {}, errorText(error, isBound)));
  if (doubtful) cell.append(" ", el("small", { title: "doubtful" }, "†"));
  return { key: value, cell };
}

/** The cell with a head's value of a statistic. It sorts by rank, which tells apart what looks the same. */
function headCell(statistic, at, head, width = 0) {
  const error = errorOf(statistic, at, head);
  const made = valueCell(statistic.values[at][head], {
    error,
    isBound: statistic.is_bound,
    doubtful: isDoubtful(statistic, at, head),
    width,
  });
  const rank = statistic.ranks[at][head];
  return { key: rank === null ? null : -rank, cell: made.cell };
}

/** Index of a label of a statistic; -1 if it is missing. */
const place = (statistic, label = "") => statistic.labels.indexOf(label);

/** The values that get a column of their own: [statistic, index of the label]. */
const columns = data.columns.map(([name, label]) => [byName.get(name), place(byName.get(name), label)]);

// ---- tables that sort ----

/** `titles`: strings; `rows`: arrays of {key, cell}. Missing values come last; equal ones keep their order. */
function sortable(name, titles, rows, attributes = {}) {
  const body = el("tbody", {});
  const lines = rows.map((cells) => ({
    keys: cells.map((c) => c.key),
    row: el("tr", {}, ...cells.map((c) => c.cell)),
  }));
  const heads = titles.map((title, column) => {
    const button = el("button", { type: "button" }, title);
    const head = el("th", { scope: "col" }, button);
    button.addEventListener("click", () => {
      const first = typeof lines[0]?.keys[column] === "string" ? "ascending" : "descending";
      const other = first === "ascending" ? "descending" : "ascending";
      const order = head.getAttribute("aria-sort") === first ? other : first;
      for (const h of heads) h.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", order);
      body.append(...sorted(lines, column, order).map((line) => line.row));
    });
    return head;
  });
  body.append(...lines.map((line) => line.row));
  const table = el("table", { class: "sortable", ...attributes }, el("thead", {}, el("tr", {}, ...heads)), body);
  return scrolling(name, table);
}

function sorted(lines, column, order) {
  const sign = order === "ascending" ? 1 : -1;
  return [...lines].sort((a, b) => {
    const [x, y] = [a.keys[column], b.keys[column]];
    if (x === null || y === null) return (x === null) - (y === null);
    return sign * (typeof x === "string" ? x.localeCompare(y) : x - y);
  });
}

// ---- groups of links with a single tab stop; arrow keys move between them ----

function roving(container, perRow) {
  for (const [i, link] of container.querySelectorAll("a").entries()) link.setAttribute("tabindex", i ? "-1" : "0");
  container.addEventListener("keydown", (event) => {
    const links = [...container.querySelectorAll("a")];
    const at = links.indexOf(document.activeElement);
    const ends = { Home: -at, End: links.length - 1 - at };
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -perRow, ArrowDown: perRow, ...ends }[event.key];
    if (at < 0 || step === undefined) return;
    event.preventDefault();
    links[at + step]?.focus();
  });
  container.addEventListener("focusin", (event) => {
    if (!event.target.matches("a")) return;
    container.querySelector('a[tabindex="0"]').setAttribute("tabindex", "-1");
    event.target.setAttribute("tabindex", "0");
  });
  return container;
}

// ---- heatmaps ----

const colour = (value, low, high) =>
  data.colours[high > low ? Math.round(((value - low) / (high - low)) * (data.colours.length - 1)) : 0];

/** Scales include 0, so that the colours of two maps can be compared. */
function scaleOf(values) {
  const there = values.flat(2).filter((value) => value !== null);
  return [Math.min(0, ...there), Math.max(0, ...there)];
}

function colourBar(low, high, unit) {
  const bar = el("span", { class: "ramp" });
  bar.style.background = `linear-gradient(to right, ${data.colours.join(", ")})`;
  return el("figcaption", { class: "colours" }, number(low), bar, number(high), " ", unit);
}

function heatmap(statistic, at) {
  const [low, high] = scaleOf(statistic.values[at]);
  const corner = el("td", { class: "corner" });
  const every = data.heads.length <= 12 ? 1 : data.heads.length <= 24 ? 2 : 5; // skip numbers that would overlap
  const across = data.heads.map((head, i) => el("th", { scope: "col" }, i % every ? "" : String(head)));
  const rows = data.layers.map((layer, i) => {
    const cells = data.heads.map((_, j) => cellOf(statistic, at, i * data.heads.length + j, low, high));
    return el("tr", {}, el("th", { scope: "row" }, String(layer)), ...cells);
  });
  const name = `${named(statistic, statistic.labels[at])}, layers down, heads across`;
  const table = el(
    "table",
    { class: "map", "aria-label": name },
    el("thead", {}, el("tr", {}, corner, ...across)),
    el("tbody", {}, ...rows),
  );
  table.style.minWidth = `${2 + data.heads.length * 0.6}rem`;
  const unknown = statistic.errors ? "" : "No error is known.";
  const formula = el("p", { class: "note" }, [statistic.formula, unknown].filter(Boolean).join(". "));
  const axes = el("p", { class: "axes" }, "head →, layer ↓");
  return el(
    "figure",
    {},
    formula,
    axes,
    el("div", { class: "scroll" }, roving(table, data.heads.length)),
    colourBar(low, high, statistic.unit),
  );
}

function cellOf(statistic, at, head, low, high) {
  const value = statistic.values[at][head];
  const doubtful = isDoubtful(statistic, at, head);
  const text = value === null ? "undetermined" : `${withError(statistic, at, head)} ${statistic.unit}`.trim();
  const link = el("a", {
    href: `#${data.names[head]}`,
    "aria-label": `${data.names[head]}: ${text}${doubtful ? ", doubtful" : ""}`,
  });
  if (value === null) link.className = "undetermined";
  else link.style.backgroundColor = colour(value, low, high);
  if (doubtful) link.className = "doubtful";
  return el("td", {}, link);
}

function showTip(event) {
  const link = event.target.closest(".map a");
  tip.hidden = !link;
  if (!link) return;
  tip.textContent = link.getAttribute("aria-label");
  const box = link.getBoundingClientRect();
  const room = document.documentElement.clientWidth - tip.offsetWidth - 8;
  const above = box.top > tip.offsetHeight + 8;
  tip.style.left = `${Math.max(8, Math.min(box.left + box.width / 2 - tip.offsetWidth / 2, room))}px`;
  tip.style.top = `${scrollY + (above ? box.top - tip.offsetHeight - 6 : box.bottom + 6)}px`;
}

/** A map for statistics with labels, with menus to choose from. */
function chooser(statistics) {
  const panel = el("div", { class: "panel" });
  const [which, label] = ["statistic", "label"].map((name) => el("select", { "aria-label": name }));
  which.append(...statistics.map((statistic, i) => el("option", { value: i }, statistic.title)));
  const holder = el("div", {});
  const draw = () => holder.replaceChildren(heatmap(statistics[which.value], Number(label.value)));
  const choose = () => {
    const statistic = statistics[which.value];
    label.replaceChildren(...statistic.labels.map((text, i) => el("option", { value: i }, String(text))));
    const usual = columns.find(([of]) => of === statistic);
    label.value = usual ? usual[1] : 0;
    draw();
  };
  which.addEventListener("change", choose);
  label.addEventListener("change", draw);
  choose();
  panel.append(el("h3", {}, "By label"), el("p", { class: "choices" }, which, label), holder);
  return panel;
}

function maps() {
  const single = data.statistics.filter((statistic) => !statistic.dim);
  const labelled = data.statistics.filter((statistic) => statistic.dim);
  const panels = single.map((statistic) =>
    el("div", { class: "panel" }, el("h3", {}, statistic.title), heatmap(statistic, 0)),
  );
  if (labelled.length) panels.push(chooser(labelled));
  if (!panels.length) return [];
  const note =
    "Choose a head to open its card. With the keyboard: arrow keys and Enter. Doubtful heads are struck out.";
  return [section("Heads at a glance", note, el("div", { class: "panels" }, ...panels))];
}

// ---- the overview ----

function strongest() {
  const rows = columns.map(([statistic, at], column) => {
    const top = statistic.ranks[at]
      .map((rank, head) => ({ rank, head }))
      .filter(({ rank, head }) => rank !== null && !isDoubtful(statistic, at, head));
    const heads = top
      .sort((a, b) => a.rank - b.rank)
      .slice(0, 3)
      .map(({ head }) => el("span", { class: "entry" }, headLink(head), ` ${withError(statistic, at, head)}`));
    if (data.tied[column]) heads[0].append(" ", el("small", {}, `(${data.tied[column]})`));
    const name = el("th", { scope: "row" }, named(statistic, statistic.labels[at]));
    const leftOut = statistic.doubtful[at].length;
    return el(
      "tr",
      {},
      name,
      el("td", {}, ...(heads.length ? heads : ["none"])),
      el("td", { class: "unit" }, statistic.unit),
      el("td", { class: "unit" }, leftOut ? `${leftOut} doubtful` : ""),
    );
  });
  if (!rows.length) return [];
  const table = el("table", { class: "strongest" }, el("tbody", {}, ...rows));
  const note = `Heads cannot be told apart from the strongest if their 95% bounds, which hold for all heads at once, overlap. Doubtful heads are left out: ${data.doubt}.`;
  return [section("Strongest heads", note, scrolling("Strongest heads", table))];
}

function allHeads() {
  if (!data.names.length) return [];
  const widths = columns.map(([statistic, at]) => widest(statistic, at));
  const rows = data.names.map((_, head) => [
    { key: head, cell: el("th", { scope: "row" }, headLink(head)) },
    ...columns.map(([statistic, at], i) => headCell(statistic, at, head, widths[i])),
  ]);
  const titles = [
    "head",
    ...columns.map(([statistic, at]) => `${readable(statistic.name)} ${statistic.labels[at]}`.trim()),
  ];
  const table = sortable("All heads", titles, rows, { id: "all-heads" });
  roving(table.querySelector("tbody"), 1);
  return [section("All heads", "Click a heading to sort, again to reverse the order. † marks doubtful values.", table)];
}

for (const type of ["pointerover", "focusin"]) document.addEventListener(type, showTip);
document.addEventListener("focusout", () => {
  tip.hidden = true;
});
document.getElementById("sections").append(...strongest(), ...maps(), ...allHeads());
