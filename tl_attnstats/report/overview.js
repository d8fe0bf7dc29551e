"use strict";

const byName = new Map(data.statistics.map((statistic) => [statistic.name, statistic]));
const tip = document.getElementById("tip");

// ---- words and numbers ----

const headLink = (head) => el("a", { href: `#${data.names[head]}` }, data.names[head]);
const isDoubtful = (statistic, at, head) => statistic.doubtful[at].includes(head);
const countOf = (statistic, at) => statistic.values[at].filter((value) => value !== null).length;

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

/** The values that get a column of their own: [statistic, index of the label]. */
const columns = data.columns.map(([name, label]) => [byName.get(name), place(byName.get(name), label)]);

// ---- heatmaps ----

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
  return [
    section(
      "All heads",
      "Click a heading to sort, again to reverse the order. † marks doubtful values. The filter of the map applies here, too.",
      table,
    ),
  ];
}

for (const type of ["pointerover", "focusin"]) document.addEventListener(type, showTip);
document.addEventListener("focusout", () => {
  tip.hidden = true;
});
/** Hide the heads that a query leaves out. */
function filterTable(matches) {
  for (const row of document.querySelectorAll("#all-heads tbody tr")) {
    row.hidden = matches !== null && !matches[data.names.indexOf(row.querySelector("a").textContent)];
  }
}

const headsOnMap = () =>
  data.names.length ? headMap([data], { opens: (_, head) => `#${data.names[head]}`, onQuery: filterTable }) : [];

document.getElementById("sections").append(...strongest(), ...maps(), ...headsOnMap(), ...allHeads());
