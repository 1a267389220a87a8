// Helpers that make and change elements. Text is only inserted as text, because names come from policies.

const PLAIN = /^[ -~]*$/;

const SVG = 'http://www.w3.org/2000/svg';

/** Text in which invisible characters, and those that reorder a line, are escaped. */
function visible(text) {
  // Most text is plain, and this is called for every text that may have changed.
  if (typeof text === 'string' && PLAIN.test(text)) return text;
  const escape = (c) => `\\u${c.codePointAt(0).toString(16).padStart(4, '0')}`;
  return String(text).replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, escape);
}

function make(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) node.setAttribute(name, '');
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child != null).map((c) => (c instanceof Node ? c : visible(c))));
  return node;
}

/** An element with attributes (`false` and `null` leave one out) and children (nodes or text). */
export function el(tag, attributes = {}, ...children) {
  return make(document.createElement(tag), attributes, children);
}

/** The same in SVG. */
export function svg(tag, attributes = {}, ...children) {
  return make(document.createElementNS(SVG, tag), attributes, children);
}

/** One of the icons in index.html. It is decorative: a word is beside it. */
export function sign(name) {
  const use = svg('use', { href: `#sign-${name}` });
  return svg('svg', { class: `sign ${name}`, viewBox: '0 0 16 16', 'aria-hidden': 'true', focusable: 'false' }, use);
}

/** Changes an icon. */
export function setSign(node, name) {
  setAttribute(node, 'class', `sign ${name}`);
  setAttribute(node.firstChild, 'href', `#sign-${name}`);
}

/** Sets an element's text if it differs. */
export function setText(node, raw) {
  const text = visible(raw);
  const only = node.firstChild;
  if (only?.nodeType === Node.TEXT_NODE && !only.nextSibling) {
    if (only.data !== text) only.data = text;
  } else if (only || text !== '') {
    node.textContent = text;
  }
}

/** Sets an attribute if it differs; `null` removes it. */
export function setAttribute(node, name, value) {
  if (value == null) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

/** Sets a style if it differs. The content security policy forbids inline style attributes, but not this. */
export function setStyle(node, name, value) {
  if (node.style.getPropertyValue(name) !== value) node.style.setProperty(name, value);
}

/** Hides or shows. */
export function setHidden(node, hidden) {
  if (node.hidden !== hidden) node.hidden = hidden;
}

const kept = new WeakMap();

/**
 * Makes the children of `parent` those of `items`, in their order, and reuses the elements of items that were there before.
 * `create(item)` returns `{node, …}`, and `update(row, item)` updates it; items with equal keys have separate elements.
 */
export function keyed(parent, items, keyOf, create, update) {
  let rows = kept.get(parent);
  if (!rows) kept.set(parent, (rows = new Map()));
  const gone = new Map(rows);
  let next = parent.firstChild;
  for (const item of items) {
    const name = keyOf(item);
    let key = name;
    for (let twin = 2; rows.has(key) && !gone.has(key); twin += 1) key = `${name}\n${twin}`;
    let row = rows.get(key);
    if (row) gone.delete(key);
    else rows.set(key, (row = create(item)));
    if (row.node === next) next = next.nextSibling;
    // The next one has moved down: it is moved when it is its turn, instead of all others before it.
    else if (next && row.node === next.nextSibling) next = row.node.nextSibling;
    else parent.insertBefore(row.node, next);
    // Already in the document, so that it can be measured.
    update(row, item);
  }
  for (const [key, row] of gone) {
    row.node.remove();
    rows.delete(key);
  }
}
