// The few ways in which this page makes and changes elements. Text only ever goes in as text: names come from policies.

const SVG = 'http://www.w3.org/2000/svg';

/** Text with what a reader would not see, or what reorders a line, as escapes. */
function visible(text) {
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

/** One of the signs that index.html declares. It says nothing by itself: a word stands beside it. */
export function sign(name) {
  const use = svg('use', { href: `#sign-${name}` });
  return svg('svg', { class: `sign ${name}`, viewBox: '0 0 16 16', 'aria-hidden': 'true', focusable: 'false' }, use);
}

/** Gives a sign another form. */
export function setSign(node, name) {
  setAttribute(node, 'class', `sign ${name}`);
  setAttribute(node.firstChild, 'href', `#sign-${name}`);
}

/** Sets an element's text, and touches the document only when it is another one. */
export function setText(node, raw) {
  const text = visible(raw);
  const only = node.firstChild;
  if (only?.nodeType === Node.TEXT_NODE && !only.nextSibling) {
    if (only.data !== text) only.data = text;
  } else if (only || text !== '') {
    node.textContent = text;
  }
}

/** Sets an attribute when it is another one; `null` removes it. */
export function setAttribute(node, name, value) {
  if (value == null) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

/** Sets a style when it is another one. The content security policy has no inline styles, and this is none. */
export function setStyle(node, name, value) {
  if (node.style.getPropertyValue(name) !== value) node.style.setProperty(name, value);
}

/** Hides or shows. */
export function setHidden(node, hidden) {
  if (node.hidden !== hidden) node.hidden = hidden;
}

const kept = new WeakMap();

/**
 * Makes the children of `parent` those of `items`, in their order, and keeps the elements of those that were there before.
 * `create(item)` gives `{node, …}`, `update(row, item)` brings it up to date; items with the same key share nothing.
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
    else parent.insertBefore(row.node, next);
    // In the document, where it can be measured.
    update(row, item);
  }
  for (const [key, row] of gone) {
    row.node.remove();
    rows.delete(key);
  }
}
