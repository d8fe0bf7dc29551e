"use strict";

// What is chosen, in one object. The URL fragment keeps what one would want to link to: stream, heads, token, direction.

const MOST_COLOURS = 6;
const LONG = 48; // longer texts begin as a paragraph, because a column of more tokens does not fit on a screen
const $ = (id) => document.getElementById(id);

const state = {
  stream: 0,
  heads: [0],
  pinned: null, // {side: "queries" or "keys", token}
  hovered: null,
  direction: "from",
  words: false,
  sinks: "dim",
  parts: "all",
  least: 0.02,
  bright: false,
  layout: "lines",
};
const stream = () => streams[state.stream];
const units = () => stream().units(state.words);
const sideOf = (direction) => (direction === "from" ? "queries" : "keys");
const active = () => state.hovered ?? state.pinned;
const rounded = (weight) => weight.toFixed(3);

/** A token's text for a label: spaces and line breaks made visible. */
function labelOf(text) {
  const shown = text.startsWith(" ") && text.trim() ? text.slice(1) : text;
  return (
    shown
      .replace(/[\n\r]/g, "↵")
      .replace(/\t/g, "⇥")
      .replace(/^ +$/g, (spaces) => "␣".repeat(spaces.length)) || "∅"
  );
}

/** What remains of a head's weights: [query unit, key unit, weight, share of its full colour]. */
function visible(head, { rows = null, columns = null } = {}) {
  const { queries, keys } = units();
  const width = keys.groups.length;
  const weights = stream().matrix(head, state.words);
  const hidden = stream().hidden(head, state.words);
  const found = [];
  const take = (query, key) => {
    const weight = weights[query * width + key];
    if (weight <= 0 || weight < state.least || !partShown(queries.parts[query], keys.parts[key])) return;
    if (hidden[key] && state.sinks === "hide") return;
    found.push([query, key, weight, weight * (hidden[key] && state.sinks === "dim" ? 0.25 : 1)]);
  };
  for (let query = 0; query < queries.groups.length; query++) {
    if (rows && !rows.includes(query)) continue;
    for (let key = 0; key < width; key++) if (!columns || columns.includes(key)) take(query, key);
  }
  if (state.bright) {
    const most = Math.max(...found.map((entry) => entry[3]), 0);
    for (const entry of found) entry[3] /= most;
  }
  return found;
}

function partShown(query, key) {
  if (state.parts === "all") return true;
  if (state.parts === "within") return query === key;
  if (state.parts === "across") return query !== key;
  return state.parts === `${query}>${key}`;
}

/** The unit of a token on a side. */
const unitOf = (place) => units()[place.side].unitOf[place.token];

/** Units of the other side that the active token looks at, or that look at it, for a head: [unit, weight, strength]. */
function partners(head, place) {
  const unit = unitOf(place);
  const found = visible(head, place.side === "queries" ? { rows: [unit] } : { columns: [unit] });
  return found.map(([query, key, weight, strength]) => [place.side === "queries" ? key : query, weight, strength]);
}

// ---- the URL fragment: #head=L5H6,L16H0&token=7&direction=to&stream=cross ----

let written = "";

function writeFragment() {
  const parts = new URLSearchParams();
  if (streams.length > 1) parts.set("stream", stream().name);
  parts.set("head", state.heads.map((head) => stream().names[head]).join(","));
  if (state.pinned) parts.set("token", state.pinned.token);
  if (state.direction === "to") parts.set("direction", "to");
  written = `#${parts.toString().replaceAll("%2C", ",")}`;
  try {
    history.replaceState(null, "", written);
  } catch {
    // A sandboxed frame has no address of its own.
  }
}

function readFragment() {
  if (location.hash === written) return false;
  const parts = new URLSearchParams(location.hash.slice(1));
  const at = streams.findIndex((one) => one.name === parts.get("stream"));
  if (at >= 0) state.stream = at;
  const heads = (parts.get("head") ?? "").split(",").map((name) => stream().names.indexOf(name));
  const known = [...new Set(heads.filter((head) => head >= 0))].slice(0, MOST_COLOURS);
  state.heads = known.length ? known : [0];
  state.direction = parts.get("direction") === "to" ? "to" : "from";
  const side = sideOf(state.direction);
  const token = /^\d+$/.test(parts.get("token") ?? "") ? Number(parts.get("token")) : -1;
  state.pinned = token >= 0 && token < stream()[side].tokens.length ? { side, token } : null;
  return true;
}
