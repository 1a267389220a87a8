// Small helpers. Text goes in as text, never as markup: names come from policies.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** An HTML element. */
export const h = (name, attributes, ...children) => fill(document.createElement(name), attributes, children);

/** An SVG element. */
export const s = (name, attributes, ...children) => fill(document.createElementNS(SVG, name), attributes, children);

/**
 * Makes `now` what `before` is, and touches nothing that is the same: focus, selection and a reader's place stay.
 * Elements with a `data-key` are found again wherever they went.
 */
export function patch(before, now) {
  if (before.nodeType !== now.nodeType || before.nodeName !== now.nodeName) {
    before.replaceWith(now);
    return;
  }
  if (before.nodeType === Node.TEXT_NODE) {
    if (before.data !== now.data) before.data = now.data;
    return;
  }
  for (const { name } of [...before.attributes]) {
    // What the user opened stays open.
    if (!now.hasAttribute(name) && !(name === "open" && before.nodeName === "DETAILS")) before.removeAttribute(name);
  }
  for (const { name, value } of now.attributes) {
    if (before.getAttribute(name) !== value) before.setAttribute(name, value);
  }
  // What is typed belongs to the user.
  if (before.nodeName !== "INPUT") patchChildren(before, [...now.childNodes]);
}

/** The same for the children of an element. */
export function patchChildren(parent, wanted) {
  const keyed = new Map();
  for (const child of parent.childNodes) {
    if (child.dataset?.key) keyed.set(child.dataset.key, child);
  }
  let at = parent.firstChild;
  for (const now of wanted) {
    const known = now.dataset?.key ? keyed.get(now.dataset.key) : undefined;
    if (known) {
      if (known !== at) parent.insertBefore(known, at);
      else at = at.nextSibling;
      patch(known, now);
    } else if (at && !at.dataset?.key && !now.dataset?.key) {
      const next = at.nextSibling;
      patch(at, now);
      at = next;
    } else {
      parent.insertBefore(now, at);
    }
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

/** `1,234`, `12`, `3.4`, `0.25`. */
export function number(value) {
  if (value === null || value === undefined) return "–";
  const digits = value >= 100 ? 0 : value >= 10 ? 1 : value > 0 ? 2 : 0;
  return value.toLocaleString("en", { maximumFractionDigits: digits });
}

/** `12.3/s`. */
export const rate = (value) => `${number(value)}/s`;

/** `12 %`. */
export const percent = (share) => (share === null || share === undefined ? "–" : `${number(100 * share)} %`);

/** `3 s ago`, `5 min ago`. */
export function ago(then, now) {
  if (then === null || then === undefined) return "never";
  const seconds = Math.max(0, Math.round(now - then));
  if (seconds < 60) return `${seconds} s ago`;
  if (seconds < 3600) return `${Math.round(seconds / 60)} min ago`;
  return seconds < 172800 ? `${Math.round(seconds / 3600)} h ago` : `${Math.round(seconds / 86400)} days ago`;
}

/** A word with a border in the colour of its meaning; the word says it too. */
export const mark = (kind, text) => h("span", { class: `mark ${kind}` }, text);

/** The last minutes of a rate. The number beside it says the same to whoever does not see it. */
export function spark(history, bad) {
  const most = Math.max(...history, 0.001);
  const step = history.length > 1 ? 100 / (history.length - 1) : 100;
  const points = history.map((value, i) => `${(i * step).toFixed(1)} ${(19 - (17 * value) / most).toFixed(1)}`);
  return s("svg", { class: bad ? "spark bad" : "spark", viewBox: "0 0 100 20", preserveAspectRatio: "none", "aria-hidden": "true" },
    s("path", { d: points.length ? `M${points.join("L")}` : "M0 19" }));
}

/** A bar from 0 to 1, with a line where it should end. */
export function bar(share, kind, wanted) {
  const width = Math.min(100, Math.max(0, 100 * (share ?? 0)));
  return h("span", { class: "bar", "aria-hidden": "true" },
    s("svg", { viewBox: "0 0 100 10", preserveAspectRatio: "none" },
      s("rect", { class: `fill-${kind}`, x: 0, y: 0, width, height: 10 }),
      wanted === null || wanted === undefined ? null
        : s("line", { class: "line-ink", x1: 100 * wanted, x2: 100 * wanted, y1: 0, y2: 10, "vector-effect": "non-scaling-stroke" })));
}

/** A table with a caption, heads, and rows of a key and cells. */
export function table(caption, heads, rows) {
  const cell = (content, i) => {
    const attributes = heads[i].endsWith("#") ? { class: "number" } : {};
    return i === 0 ? h("th", { scope: "row", ...attributes }, content) : h("td", attributes, content);
  };
  return h("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": caption },
    h("table", {},
      h("caption", {}, caption),
      h("thead", {}, h("tr", {}, heads.map((head) =>
        h("th", { scope: "col", class: head.endsWith("#") ? "number" : null }, head.replace("#", ""))))),
      h("tbody", {}, rows.map(([key, cells]) => h("tr", { "data-key": key }, cells.map(cell))))));
}
