"use strict";

// The view that is on the screen, as an SVG file: text stays text, colours are those of the screen.

function saveView(view) {
  const file = new Blob([svgOf(view)], { type: "image/svg+xml" });
  const link = el("a", {
    href: URL.createObjectURL(file),
    download: `${view}-${state.heads.map((head) => stream().names[head]).join("-")}.svg`,
  });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function svgOf(view) {
  const root = { model: grid, head: $("tokens"), neuron: $("neuron-figure") }[view];
  const box = root.getBoundingClientRect();
  const [width, height] = [root.scrollWidth, root.scrollHeight].map(Math.ceil);
  const picture = svg("svg", {
    xmlns: "http://www.w3.org/2000/svg",
    width,
    height,
    viewBox: `0 0 ${width} ${height}`,
    "font-family": getComputedStyle(document.body).fontFamily,
  });
  picture.append(svg("rect", { width, height, fill: colour("--panel") }));
  const at = (node) => {
    const own = node.getBoundingClientRect();
    return { x: own.left - box.left, y: own.top - box.top, width: own.width, height: own.height };
  };
  for (const node of root.querySelectorAll("svg")) picture.append(styled(node, at(node)));
  for (const one of view === "model" ? thumbs : []) picture.append(...smallPicture(one, at(one.button)));
  for (const node of root.querySelectorAll(".token")) picture.append(...shades(node, box));
  for (const text of textsOf(root)) picture.append(writtenAt(text, box));
  return new XMLSerializer().serializeToString(picture);
}

/** A copy of a drawing whose colours do not depend on the style sheet. */
function styled(node, { x, y }) {
  const copy = node.cloneNode(true);
  const originals = node.querySelectorAll("*");
  copy.querySelectorAll("*").forEach((part, at) => {
    const look = getComputedStyle(originals[at]);
    for (const name of ["fill", "stroke", "fill-opacity", "stroke-opacity", "font-size"])
      part.setAttribute(name, look.getPropertyValue(name));
    part.removeAttribute("style");
    part.removeAttribute("class");
  });
  copy.removeAttribute("id");
  copy.setAttribute("width", node.clientWidth || node.getAttribute("width"));
  const group = svg("g", { transform: `translate(${x} ${y})` });
  group.append(copy);
  return group;
}

function smallPicture({ head, size }, { x, y, width, height }) {
  const ink = colour(`--line-${Math.max(state.heads.indexOf(head), 0)}`);
  const chosen = state.heads.includes(head);
  const frame = svg("rect", {
    x,
    y,
    width,
    height,
    fill: "none",
    stroke: chosen ? ink : colour("--line"),
    "stroke-width": chosen ? 2 : 1,
  });
  const paths = Object.entries(smallLines(head)).map(([opacity, lines]) => {
    const d = lines
      .map(
        ([from, to]) =>
          `M${(x + 2).toFixed(1)} ${(y + 1 + from * size).toFixed(1)}L${(x + size).toFixed(1)} ${(y + 1 + to * size).toFixed(1)}`,
      )
      .join("");
    return svg("path", { d, fill: "none", stroke: ink, "stroke-opacity": opacity, "stroke-width": 0.8 });
  });
  return [frame, ...paths];
}

/** The stripes behind a token, once for each line of text that it is on. */
function shades(node, box) {
  const drawn = [];
  for (const own of node.getClientRects()) {
    const n = state.heads.length;
    for (const [at, strength] of node.shades ?? []) {
      const height = own.height / n;
      const y = own.top - box.top + at * height;
      drawn.push(
        svg("rect", {
          x: own.left - box.left,
          y,
          width: own.width,
          height,
          fill: colour(`--fill-${at}`),
          "fill-opacity": Math.min(1, strength),
        }),
      );
    }
    if (node.matches(".active, .pinned")) {
      const [x, y] = [own.left - box.left, own.top - box.top];
      drawn.push(
        svg("rect", {
          x,
          y,
          width: own.width,
          height: own.height,
          fill: "none",
          stroke: colour("--front"),
          "stroke-width": 1.5,
        }),
      );
    }
  }
  return drawn;
}

/** Pieces of text as they are laid out: [text node, start, end], one for each line. */
function textsOf(root) {
  const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT, (node) =>
    node.parentElement.closest("svg") ? NodeFilter.FILTER_REJECT : NodeFilter.FILTER_ACCEPT,
  );
  const found = [];
  while (walker.nextNode()) {
    const node = walker.currentNode;
    const range = document.createRange();
    let start = 0;
    let top = null;
    for (let at = 0; at < node.length; at++) {
      range.setStart(node, at);
      range.setEnd(node, at + 1);
      const own = range.getBoundingClientRect();
      if (top !== null && own.height && Math.abs(own.top - top) > 4) {
        found.push([node, start, at]);
        start = at;
      }
      if (own.height) top = own.top;
    }
    found.push([node, start, node.length]);
  }
  return found.filter(([node, start, end]) => node.data.slice(start, end).trim());
}

function writtenAt([node, start, end], box) {
  const range = document.createRange();
  range.setStart(node, start);
  range.setEnd(node, end);
  const own = range.getBoundingClientRect();
  const look = getComputedStyle(node.parentElement);
  const size = Number.parseFloat(look.fontSize);
  return svg(
    "text",
    {
      x: own.left - box.left,
      y: own.top - box.top + own.height / 2 + size * 0.35,
      textLength: own.width,
      fill: look.color,
      "font-size": size,
      "font-weight": look.fontWeight,
      "font-style": look.fontStyle,
      style: "white-space: pre",
    },
    node.data.slice(start, end).replace(/[\n\r]/g, " "),
  );
}
