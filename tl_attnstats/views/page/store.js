"use strict";

// Unpacks what pack.py packed: weights by head, query and key vectors, tokens and words.

const BIGGEST = 255;
const data = JSON.parse(document.getElementById("data").textContent);

/** The bytes of a base64 text that was compressed. */
async function unpacked(text) {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
}

/** Tokens grouped into units: each by itself, or the pieces of a word together. */
function unitsOf(side, inWords) {
  const groups = [];
  side.tokens.forEach((_, at) => {
    const word = side.words[at];
    const last = groups.at(-1);
    if (inWords && word >= 0 && last && side.words[last[0]] === word) last.push(at);
    else groups.push([at]);
  });
  const unitOf = [];
  groups.forEach((group, unit) => {
    for (const token of group) unitOf[token] = unit;
  });
  const texts = groups.map((group) => group.map((token) => side.tokens[token]).join(""));
  return { groups, unitOf, texts, parts: groups.map((group) => side.parts?.[group[0]] ?? 0) };
}

/** One stream of attention: of a decoder, an encoder, or between the two. */
class Stream {
  constructor(given) {
    Object.assign(this, given);
    this.crosses = given.keys !== null;
    this.keys = given.keys ?? given.queries;
    this.nQueries = this.queries.tokens.length;
    this.nKeys = this.keys.tokens.length;
    this.hasWords = [this.queries, this.keys].some((side) => unitsOf(side, true).groups.length < side.tokens.length);
    this.cache = new Map();
  }

  async unpack() {
    const [largest, steps] = await Promise.all([unpacked(this.largest), unpacked(this.steps)]);
    this.largest = new Float32Array(largest);
    this.steps = new Uint8Array(steps);
    this.perHead = this.causal ? (this.nQueries * (this.nQueries + 1)) / 2 : this.nQueries * this.nKeys;
  }

  /** Query and key vectors, unpacked when they are first needed. */
  async unpackVectors() {
    const given = this.vectors;
    if (!given || given.ready) return;
    const whole = given.bits === 16 ? Int16Array : Int8Array;
    const parts = [given.queries, given.keys, given.query_sizes, given.key_sizes];
    const [queries, keys, querySizes, keySizes] = await Promise.all(parts.map(unpacked));
    given.queries = new whole(queries);
    given.keys = new whole(keys);
    given.query_sizes = new Float32Array(querySizes);
    given.key_sizes = new Float32Array(keySizes);
    given.ready = true;
  }

  /** A query vector (kind "queries") or key vector ("keys") of a head. */
  vector(kind, head, token) {
    const { bits, size, group } = this.vectors;
    const row = (kind === "keys" ? group[head] : head) * (kind === "keys" ? this.nKeys : this.nQueries) + token;
    const sizes = kind === "keys" ? this.vectors.key_sizes : this.vectors.query_sizes;
    const unit = sizes[row] / (2 ** (bits - 1) - 1);
    return Array.from(this.vectors[kind].subarray(row * size, (row + 1) * size), (whole) => whole * unit);
  }

  /** The weight that a query token gives a key token. */
  weight(head, query, key) {
    if (this.causal && key > query) return 0;
    const start = head * this.perHead + (this.causal ? (query * (query + 1)) / 2 : query * this.nKeys);
    return (this.steps[start + key] / BIGGEST) * this.largest[head * this.nQueries + query];
  }

  units(inWords) {
    this.cachedUnits ??= {};
    this.cachedUnits[inWords] ??= {
      queries: unitsOf(this.queries, inWords),
      keys: unitsOf(this.keys, inWords),
    };
    return this.cachedUnits[inWords];
  }

  /** Weights between units: sums over the pieces of a key word, means over those of a query word. `[query][key]`, flat. */
  matrix(head, inWords) {
    const name = `${head}/${inWords}`;
    if (this.cache.has(name)) return this.cache.get(name);
    const { queries, keys } = this.units(inWords);
    const width = keys.groups.length;
    const made = new Float32Array(queries.groups.length * width);
    queries.groups.forEach((group, row) => {
      for (const query of group) {
        const last = this.causal ? query : this.nKeys - 1;
        for (let key = 0; key <= last; key++) {
          made[row * width + keys.unitOf[key]] += this.weight(head, query, key) / group.length;
        }
      }
    });
    if (this.cache.size > 40) this.cache.clear();
    this.cache.set(name, made);
    return made;
  }

  /** Units that are null, or a sink of the head: true where one of their pieces is. */
  hidden(head, inWords) {
    const tokens = new Set([...this.null, ...(this.sinks[head] ?? [])]);
    return this.units(inWords).keys.groups.map((group) => group.some((token) => tokens.has(token)));
  }
}

const streams = data.streams.map((given) => new Stream(given));
