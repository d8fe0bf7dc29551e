"use strict";

// ---- a map of heads: any statistic against any other, or the two principal components ----

const SHAPES = [
  "M-4,0A4,4 0 1 0 4,0A4,4 0 1 0 -4,0Z",
  "M0,-5.2L5,4H-5Z",
  "M-3.7,-3.7H3.7V3.7H-3.7Z",
  "M0,-5.5L5.5,0L0,5.5L-5.5,0Z",
  "M0,5.2L5,-4H-5Z",
  "M-5,-1.6H-1.6V-5H1.6V-1.6H5V1.6H1.6V5H-1.6V1.6H-5Z",
  "M-2,0A2,2 0 1 0 2,0A2,2 0 1 0 -2,0Z",
];
const PALETTE = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#8a8f98"]; // Okabe & Ito
const ROOM = { left: 52, right: 14, top: 12, bottom: 42 };
const LISTED = 60; // heads that are listed at most

/** The heads of a model, as the map and queries need them. `names` come layer by layer. */
const groupOf = (model) => ({
  ...model,
  byName: new Map(model.statistics.map((statistic) => [statistic.name, statistic])),
  layer: model.names.map((_, i) => model.layers[Math.floor(i / model.heads.length)]),
  head: model.names.map((_, i) => model.heads[i % model.heads.length]),
});

/** What an axis can show: [name of the menu's group, [{title, unit, valueOf, textOf}]]. */
function axesOf(groups) {
  const axes = (data.components?.explained ?? []).map((share, k) => ({
    title: `component ${k + 1}`,
    unit: `${Math.round(100 * share)}% of variance`,
    note: data.components.loadings[k],
    valueOf: (group, head) => group.scores[k][head],
    textOf: (group, head) => number(group.scores[k][head]),
  }));
  const of = (statistic) =>
    statistic.labels
      .filter((label) => groups.every((group) => group.byName.get(statistic.name)?.labels.includes(label)))
      .map((label) => ({
        title: named(statistic, label),
        unit: statistic.unit,
        note: "",
        valueOf: (group, head) => valueIn(group, statistic.name, label, head),
        textOf: (group, head) => {
          const its = group.byName.get(statistic.name);
          return withError(its, its.labels.indexOf(label), head);
        },
      }));
  const single = groups[0].statistics.filter((statistic) => !statistic.dim).flatMap(of);
  const labelled = groups[0].statistics
    .filter((statistic) => statistic.dim)
    .map((statistic) => [statistic.title, of(statistic)]);
  return [["all statistics together", axes], ["one value a head", single], ...labelled].filter(
    ([, some]) => some.length,
  );
}

/** Ways to colour: each gives a head a place in a list of names, or a share of a range. */
function coloursOf(groups) {
  const layers = groups.flatMap((group) => group.layer);
  const [first, last] = [Math.min(...layers), Math.max(...layers)];
  const ways = {
    layer: {
      shareOf: (group, head) => (last > first ? (group.layer[head] - first) / (last - first) : 0),
      ends: [first, last],
    },
  };
  const kinds = [...new Set(groups.flatMap((group) => group.kinds))].sort(
    (a, b) => (a === "none") - (b === "none") || a.localeCompare(b),
  );
  if (kinds.length > 1) ways.behaviour = { names: kinds, placeOf: (group, head) => kinds.indexOf(group.kinds[head]) };
  if (groups.length > 1)
    ways.model = { names: groups.map((group) => group.model), placeOf: (group) => groups.indexOf(group) };
  return ways;
}

const menu = (name, entries) => el("select", { "aria-label": name }, ...entries);

/**
 * The section with the map and the query.
 * `opens(group, head)` is the address of a head's card, or null; `onQuery(matches)` hears of queries, null for none.
 */
function headMap(models, { opens = () => null, onQuery = () => {} } = {}) {
  const groups = models.map(groupOf);
  const everyone = groups.flatMap((group) =>
    group.names.map((name, head) => ({ group, head, name: groups.length > 1 ? `${group.model} ${name}` : name })),
  );
  const axes = axesOf(groups);
  const flat = axes.flatMap(([, some]) => some);
  if (flat.length < 2) return [];
  const ways = coloursOf(groups);
  const options = () => {
    let count = 0;
    return axes.map(([title, some]) =>
      el("optgroup", { label: title }, ...some.map((axis) => el("option", { value: count++ }, axis.title))),
    );
  };
  const [across, up] = ["across", "up"].map((name) => menu(name, options()));
  up.value = 1;
  const hue = menu(
    "colour",
    Object.keys(ways).map((way) => el("option", {}, way)),
  );
  if (groups.length > 1) hue.value = "model";
  const query = el("input", {
    type: "search",
    "aria-label": "filter",
    placeholder: "induction > 0.3 and null share < 0.5",
    spellcheck: "false",
  });
  const status = el("p", { class: "note", role: "status" });
  const holder = el("div", { class: "scatter" });
  const chosenList = el("div", { class: "chosen" });
  const told = el("p", { class: "note", "aria-live": "polite" });
  let matches = null; // of the query
  let lassoed = null;

  const isShown = (i) => (matches === null || matches[i]) && (lassoed === null || lassoed.has(i));
  const draw = () => {
    const made = scatter(
      everyone,
      [flat[across.value], flat[up.value]],
      ways[hue.value],
      holder.clientWidth || 640,
      isShown,
      opens,
    );
    holder.replaceChildren(...made.nodes);
    lassoOn(made, (found) => {
      lassoed = found.size ? found : null;
      draw();
      list();
    });
    for (const type of ["pointerover", "focusin"]) {
      made.picture.addEventListener(type, (event) => {
        told.textContent = event.target.closest(".dot")?.getAttribute("aria-label") ?? told.textContent;
      });
    }
    if (!opens(groups[0], 0))
      made.picture.addEventListener("click", (event) => {
        const dot = event.target.closest(".dot");
        if (!dot) return;
        event.preventDefault();
        lassoed = new Set([Number(dot.dataset.place)]);
        list();
      });
  };
  const list = () => {
    if (matches === null && lassoed === null) return chosenList.replaceChildren();
    const those = everyone.filter((_, i) => isShown(i));
    const names = those.slice(0, LISTED).flatMap(({ group, head, name }) => {
      const to = opens(group, head);
      return [" ", to ? el("a", { href: to }, name) : el("span", {}, name)];
    });
    const more = those.length > LISTED ? ` and ${those.length - LISTED} more` : "";
    const clear = el("button", { type: "button", class: "close" }, "Show all");
    clear.addEventListener("click", () => {
      lassoed = null;
      query.value = "";
      ask();
    });
    return chosenList.replaceChildren(
      el("p", {}, el("strong", {}, `${those.length} of ${everyone.length} heads:`), ...names, more),
      clear,
    );
  };
  const find = namesIn(groups);
  const ask = () => {
    query.removeAttribute("aria-invalid");
    status.textContent = "";
    matches = null;
    try {
      if (query.value.trim()) {
        const holds = parseQuery(query.value, find);
        matches = everyone.map(({ group, head }) => holds(group, head));
        status.textContent = `${matches.filter(Boolean).length} of ${everyone.length} heads match.`;
      }
    } catch (error) {
      if (!(error instanceof QueryError)) throw error;
      query.setAttribute("aria-invalid", "true");
      status.textContent = `Not understood: ${error.message}.`;
    }
    onQuery(matches);
    draw();
    list();
  };
  for (const menuOf of [across, up, hue]) menuOf.addEventListener("change", draw);
  query.addEventListener("input", ask);
  addEventListener("resize", draw);
  setTimeout(draw); // once it is in the page and has a width
  const note =
    "Point at a head, or reach it with Tab and the arrow keys. Drag around heads to list them, or filter them by statistics, their labels, layer or head, joined by and, or, not and brackets.";
  const label = (text, field) => el("label", {}, text, " ", field);
  const choices = el("p", { class: "choices" }, label("across", across), label("up", up), label("colour", hue));
  return [
    section(
      "Map of heads",
      note,
      el("div", { class: "panel map-of-heads" }, choices, label("filter", query), status, holder, told, chosenList),
    ),
  ];
}

/** Round numbers between the ends of an axis, at most `most`. */
function ticksOf(low, high, most) {
  const rough = (high - low) / most || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((by) => by * power).find((by) => by >= rough);
  const digits = Math.max(0, -Math.floor(Math.log10(step)));
  const ticks = [];
  for (let k = Math.ceil(low / step); k * step <= high + step * 1e-6; k += 1)
    ticks.push([k * step, (k * step).toFixed(digits)]);
  return ticks;
}

function scatter(everyone, axes, way, width, isShown, opens) {
  const height = Math.round(Math.min(Math.max(width * 0.72, 300), 460));
  const values = axes.map((axis) => everyone.map(({ group, head }) => axis.valueOf(group, head)));
  const ranges = values.map((some) => {
    const there = some.filter((value) => value !== null);
    const [low, high] = there.length ? [Math.min(...there), Math.max(...there)] : [0, 1];
    const margin = (high - low || 1) * 0.04;
    return [low - margin, high + margin];
  });
  const [right, bottom] = [width - ROOM.right, height - ROOM.bottom];
  const x = (value) => ROOM.left + ((value - ranges[0][0]) / (ranges[0][1] - ranges[0][0])) * (right - ROOM.left);
  const y = (value) => bottom - ((value - ranges[1][0]) / (ranges[1][1] - ranges[1][0])) * (bottom - ROOM.top);
  const lines = [
    ...ticksOf(...ranges[0], Math.max(4, width / 110)).flatMap(([value, text]) => [
      svg("line", { x1: x(value), x2: x(value), y1: ROOM.top, y2: bottom, class: "grid" }),
      svg("text", { x: x(value), y: bottom + 15 }, text),
    ]),
    ...ticksOf(...ranges[1], 5).flatMap(([value, text]) => [
      svg("line", { x1: ROOM.left, x2: right, y1: y(value), y2: y(value), class: "grid" }),
      svg("text", { x: ROOM.left - 6, y: y(value) + 4, class: "end" }, text),
    ]),
    svg("text", { x: (ROOM.left + right) / 2, y: height - 8, class: "title" }, titleOf(axes[0])),
    svg(
      "text",
      { transform: `translate(13 ${(ROOM.top + bottom) / 2}) rotate(-90)`, class: "title" },
      titleOf(axes[1]),
    ),
  ];
  const drawn = everyone
    .map((one, i) => ({ ...one, i, x: values[0][i], y: values[1][i] }))
    .filter((one) => one.x !== null && one.y !== null);
  drawn.sort((a, b) => a.x - b.x || a.i - b.i); // arrow keys go from left to right
  const dots = drawn.map((one) => {
    const place = way.names ? way.placeOf(one.group, one.head) : 0;
    const fill = way.names
      ? PALETTE[place % PALETTE.length]
      : data.colours[Math.round(way.shareOf(one.group, one.head) * (data.colours.length - 1))];
    const text = axes.map((axis) => `${axis.title} ${axis.textOf(one.group, one.head)}`).join(", ");
    const kind = way.names ? `, ${way.names[place]}` : "";
    const shape = svg("path", { d: SHAPES[way.names ? place % SHAPES.length : 0], fill });
    return svg(
      "a",
      {
        class: isShown(one.i) ? "dot" : "dot out",
        href: opens(one.group, one.head) ?? "#",
        "data-place": one.i,
        transform: `translate(${x(one.x).toFixed(1)} ${y(one.y).toFixed(1)})`,
        "aria-label": `${one.name}: ${text}${kind}`,
      },
      shape,
    );
  });
  const loop = svg("path", { class: "loop" });
  const background = svg("rect", {
    class: "back",
    x: ROOM.left,
    y: ROOM.top,
    width: right - ROOM.left,
    height: bottom - ROOM.top,
  });
  const picture = svg(
    "svg",
    {
      viewBox: `0 0 ${width} ${height}`,
      role: "group",
      "aria-label": `Map of heads: ${axes[0].title} across, ${axes[1].title} up`,
    },
    background,
    ...lines,
    ...dots,
    loop,
  );
  if (dots.length) roving(picture, 1);
  const without = everyone.length - drawn.length;
  const notes = [...new Set(axes.map((axis) => axis.note && `${axis.title}: ${axis.note}`))].filter(Boolean);
  if (without) notes.push(`${without} heads without a value are not shown`);
  const note = notes.length ? [el("p", { class: "note" }, `${notes.join("; ")}.`)] : [];
  const places = drawn.map((one) => ({ i: one.i, x: x(one.x), y: y(one.y) }));
  return { nodes: [picture, keyOf(way), ...note], picture, loop, places, width };
}

const titleOf = (axis) => (axis.unit ? `${axis.title} (${axis.unit})` : axis.title);

/** What the colours mean. */
function keyOf(way) {
  if (!way.names) return el("div", {}, colourBar(way.ends[0], way.ends[1], "layer", String));
  return el(
    "ul",
    { class: "key-of-map" },
    ...way.names.map((name, i) => {
      const mark = svg(
        "svg",
        { viewBox: "-6 -6 12 12", "aria-hidden": "true" },
        svg("path", { d: SHAPES[i % SHAPES.length], fill: PALETTE[i % PALETTE.length] }),
      );
      return el("li", {}, mark, el("bdi", {}, name));
    }),
  );
}

/** Let the mouse draw a loop; `done` gets the set of heads inside. Touch scrolls instead. */
function lassoOn({ picture, loop, places, width }, done) {
  let corners = null;
  const at = (event) => {
    const box = picture.getBoundingClientRect();
    const scale = width / box.width;
    return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
  };
  picture.addEventListener("pointerdown", (event) => {
    if (event.pointerType === "touch" || event.button !== 0 || event.target.closest(".dot")) return;
    corners = [at(event)];
    picture.setPointerCapture(event.pointerId);
    event.preventDefault();
  });
  picture.addEventListener("pointermove", (event) => {
    if (!corners) return;
    corners.push(at(event));
    loop.setAttribute("d", `M${corners.map((corner) => corner.map((c) => c.toFixed(1)).join(",")).join("L")}Z`);
  });
  picture.addEventListener("pointerup", () => {
    if (!corners) return;
    const found = corners.length > 2 ? places.filter((place) => isInside(place, corners)) : [];
    corners = null;
    done(new Set(found.map((place) => place.i)));
  });
}

/** Whether a point is inside a loop: a line from it to the right crosses the loop an odd number of times. */
function isInside({ x, y }, corners) {
  return corners.reduce((inside, [x1, y1], i) => {
    const [x2, y2] = corners[(i + 1) % corners.length];
    return y1 > y !== y2 > y && x < x1 + ((y - y1) / (y2 - y1)) * (x2 - x1) ? !inside : inside;
  }, false);
}
