"use strict";

// ---- queries such as: induction > 0.3 and (null share < 0.5 or layer >= 20) ----

class QueryError extends Error {}

const OPERATORS = {
  "<": (a, b) => a < b,
  "<=": (a, b) => a <= b,
  ">": (a, b) => a > b,
  ">=": (a, b) => a >= b,
  "=": (a, b) => a === b,
  "!=": (a, b) => a !== b,
};
const JOINTS = ["and", "or", "not"];
const plainName = (text) => text.toLowerCase().replaceAll("_", " ").trim().replace(/\s+/g, " ");

/**
 * Read a query. Returns a function of a group of heads and the index of a head.
 * `find(name)` returns such a function that gives a value, or null; or throws a QueryError.
 */
function parseQuery(text, find) {
  const tokens = text.match(/<=|>=|!=|[<>=()]|[^\s<>=!()]+|!/g) ?? [];
  let at = 0;
  const isJoint = (token) => JOINTS.includes(token?.toLowerCase());
  const isOperator = (token) => Object.hasOwn(OPERATORS, token ?? "");
  const take = (word) => tokens[at]?.toLowerCase() === word && Boolean(++at);

  function either() {
    const parts = [both()];
    while (take("or")) parts.push(both());
    return (...head) => parts.some((part) => part(...head));
  }
  function both() {
    const parts = [term()];
    while (take("and")) parts.push(term());
    return (...head) => parts.every((part) => part(...head));
  }
  function term() {
    if (take("not")) {
      const inner = term();
      return (...head) => !inner(...head);
    }
    if (!take("(")) return comparison();
    const inner = either();
    if (!take(")"))
      throw new QueryError(
        at < tokens.length ? `expected “and”, “or” or “)” before “${tokens[at]}”` : "a bracket is not closed",
      );
    return inner;
  }
  function comparison() {
    const words = [];
    while (at < tokens.length && !isOperator(tokens[at]) && !"()!".includes(tokens[at]) && !isJoint(tokens[at]))
      words.push(tokens[at++]);
    const name = words.join(" ");
    const operator = tokens[at];
    if (!name)
      throw new QueryError(`expected the name of a statistic${operator ? ` before “${operator}”` : " at the end"}`);
    const read = find(name);
    if (!isOperator(operator)) throw new QueryError(`expected <, <=, >, >=, = or != after “${name}”`);
    const given = tokens[++at];
    const number = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?%?$/i.test(given ?? "")
      ? parseFloat(given) / (given.endsWith("%") ? 100 : 1)
      : NaN;
    if (Number.isNaN(number))
      throw new QueryError(`expected a number after “${name} ${operator}”${given ? `, got “${given}”` : ""}`);
    at += 1;
    return (...head) => {
      const value = read(...head);
      return value !== null && OPERATORS[operator](value, number);
    };
  }

  const query = either();
  if (at < tokens.length) throw new QueryError(`expected “and” or “or” before “${tokens[at]}”`);
  return query;
}

/** What `parseQuery` asks for names: statistics, their labels, and the numbers of layer and head. */
function namesIn(groups) {
  const found = new Map();
  const add = (name, entry) => {
    const key = plainName(name);
    if (!found.has(key)) found.set(key, []);
    if (!found.get(key).some((other) => other.said === entry.said)) found.get(key).push(entry);
  };
  const labelled = new Map();
  for (const { name, title, labels, dim } of groups[0].statistics) {
    labels.forEach((label, at) => {
      const said = `${readable(name)} ${label}`.trim();
      const entry = { said, valueOf: (group, head) => valueIn(group, name, label, head) };
      add(said, entry);
      add(`${title} ${label}`, entry);
      if (label !== "") add(String(label), entry);
      if (label !== "" && at === 0) for (const whole of [name, title]) labelled.set(plainName(whole), { dim, labels });
    });
  }
  const exact = { layer: (group, head) => group.layer[head], head: (group, head) => group.head[head] };
  return (name) => {
    const key = plainName(name);
    if (Object.hasOwn(exact, key)) return exact[key];
    const entries = found.get(key) ?? [];
    if (entries.length === 1) return entries[0].valueOf;
    const same = entries.find((entry) => plainName(entry.said) === key);
    if (same) return same.valueOf;
    if (entries.length)
      throw new QueryError(
        `“${name}” is in ${entries.length} statistics; name one of them: ${entries.map((entry) => entry.said).join(", ")}`,
      );
    if (labelled.has(key)) {
      const { dim, labels } = labelled.get(key);
      throw new QueryError(`“${name}” has a value for each ${dim}; add one of ${labels.slice(0, 12).join(", ")}`);
    }
    const known = groups[0].statistics.map((statistic) => readable(statistic.name));
    throw new QueryError(`“${name}” is not known; expected layer, head, or one of ${known.join(", ")}`);
  };
}

function valueIn(group, name, label, head) {
  const statistic = group.byName.get(name);
  const at = statistic ? statistic.labels.indexOf(label) : -1;
  return at < 0 ? null : statistic.values[at][head];
}
