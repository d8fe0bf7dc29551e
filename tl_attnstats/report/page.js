"use strict";

// ---- what the pages share ----

const data = JSON.parse(document.getElementById("data").textContent);

// ---- elements ----

function section(title, note, ...children) {
  const notes = note ? [el("p", { class: "note" }, note)] : [];
  return el("section", {}, el("h2", {}, title), ...notes, ...children);
}

/** A container that scrolls content wider than the screen, also with the keyboard. */
function scrolling(name, ...children) {
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": name }, ...children);
}

// ---- words ----

const readable = (name) => name.replaceAll("_", " ");
const named = (statistic, label) => (label === "" ? statistic.title : `${statistic.title}: ${label}`);

/** Index of a label of a statistic; -1 if it is missing. */
const place = (statistic, label = "") => statistic.labels.indexOf(label);

const errorOf = (statistic, at, head) => statistic.errors?.[at][head] ?? null;
const shownOf = (statistic, at, head) => toError(statistic.values[at][head], errorOf(statistic, at, head));

function withError(statistic, at, head) {
  const error = errorText(errorOf(statistic, at, head), statistic.is_bound);
  return shownOf(statistic, at, head) + (statistic.is_bound && error ? ` (${error})` : ` ${error}`).trimEnd();
}

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

// ---- groups of links or buttons with a single tab stop; arrow keys move between them ----

const STOPS = "a, button";

function roving(container, perRow) {
  for (const [i, link] of container.querySelectorAll(STOPS).entries()) link.setAttribute("tabindex", i ? "-1" : "0");
  container.addEventListener("keydown", (event) => {
    const links = [...container.querySelectorAll(STOPS)];
    const at = links.indexOf(document.activeElement);
    const ends = { Home: -at, End: links.length - 1 - at };
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -perRow, ArrowDown: perRow, ...ends }[event.key];
    if (at < 0 || step === undefined) return;
    event.preventDefault();
    links[at + step]?.focus();
  });
  container.addEventListener("focusin", (event) => {
    if (!event.target.matches(STOPS)) return;
    container.querySelector('[tabindex="0"]').setAttribute("tabindex", "-1");
    event.target.setAttribute("tabindex", "0");
  });
  return container;
}

// ---- colours ----

const colour = (value, low, high) =>
  data.colours[high > low ? Math.round(((value - low) / (high - low)) * (data.colours.length - 1)) : 0];

/** Scales include 0, so that the colours of two maps can be compared. */
function scaleOf(values) {
  const there = values.flat(2).filter((value) => value !== null);
  return [Math.min(0, ...there), Math.max(0, ...there)];
}

function colourBar(low, high, unit, text = number) {
  const bar = el("span", { class: "ramp" });
  bar.style.background = `linear-gradient(to right, ${data.colours.join(", ")})`;
  return el("figcaption", { class: "colours" }, text(low), bar, text(high), " ", unit);
}
