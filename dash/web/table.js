// A table of a section with one row for each rule, updated in place.

import { el, keyed, setAttribute, setHidden, setStyle, setText } from './dom.js';
import { list } from './list.js';

/** The number of rows from which those outside of the window are not updated each time, and how many of them are. */
const LONG = 100;
const TURNS = 50;

/** The maximum number of rows that are made in one frame. */
const NEW = 25;

/** The widths of columns in a long table, in relation to each other; 2 for others. */
const WIDTHS = { number: 1, short: 1.5, long: 3 };

const NOT_KNOWN = 'Not known: no proxy has answered.';

/** Whether anything is known of the cluster. */
const hasAnswers = (snapshot) => snapshot?.endpoints?.some((endpoint) => endpoint.alive) ?? true;

/** What an empty section says: `none` is only true when a proxy has answered. */
export const emptyText = (none, snapshot) => (hasAnswers(snapshot) ? none : NOT_KNOWN);

/**
 * Adds a table to `section`. `columns` are `{label, make()}` where `make` returns `{node, set(item, snapshot)}`; the first
 * column is the row's heading. `options`: `caption`, `none` (the text of an empty table), `isKnown` (whether that is true without a proxy
 * that answers) and those of a list.
 */
export function table(section, columns, options) {
  // Roles are explicit, because on narrow screens rows are blocks, which browsers no longer treat as a table.
  const heads = columns.map(({ label, className }) => el('th', { scope: 'col', role: 'columnheader', class: className }, label));
  const body = el('tbody', { role: 'rowgroup' });
  const node = el(
    'table',
    { role: 'table' },
    el('caption', { class: 'hidden' }, options.caption),
    el('thead', { role: 'rowgroup' }, el('tr', { role: 'row' }, ...heads)),
    body,
  );
  setStyle(node, '--columns', columns.map(({ className }) => `minmax(0, ${WIDTHS[className] ?? 2}fr)`).join(' '));
  const holder = el('div', { class: 'scroll' }, node);
  const empty = el('p', { class: 'empty', hidden: true }, options.none);
  section.append(empty, holder);
  const rows = list(holder, options);
  const state = { snapshot: null, shown: 0, place: 0, from: 0, isWhole: false, next: 0 };
  const byNode = new WeakMap();
  const watch = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries) {
        const row = byNode.get(target);
        row.isOutside = !isIntersecting;
        if (isIntersecting && row.isLate) fill(row);
      }
    },
    { rootMargin: '300px' },
  );

  function create(item) {
    const cells = columns.map((column, index) => {
      const cell = column.make(item);
      const head = index === 0;
      const attributes = { role: head ? 'rowheader' : 'cell', scope: head && 'row', 'data-label': column.label, class: column.className };
      return { set: cell.set, node: el(head ? 'th' : 'td', attributes, cell.node) };
    });
    const row = { node: el('tr', { role: 'row', tabindex: '-1', 'data-rule': options.key(item) }, ...cells.map((cell) => cell.node)), cells, item: null, isOutside: false, isLate: true };
    byNode.set(row.node, row);
    watch.observe(row.node);
    return row;
  }

  function fill(row) {
    row.isLate = false;
    for (const cell of row.cells) cell.set(row.item, state.snapshot);
    setAttribute(row.node, 'data-state', options.state?.(row.item) ?? null);
  }

  function update(row, item) {
    const isNew = row.item === null;
    row.item = item;
    row.isLate = true;
    state.place += 1;
    // In a long table, the rows outside of the window take turns: they may be read by a screen reader, and one update of a
    // thousand rows would block the page.
    const isTurn = state.place > state.from && state.place <= state.from + TURNS;
    if (isNew || !row.isOutside || state.shown <= LONG || isTurn) fill(row);
  }

  /** Makes the rows those of `shown`; if many are new, some in each frame, so that the page stays responsive. */
  function draw(shown) {
    cancelAnimationFrame(state.next);
    setAttribute(node, 'class', shown.length > LONG ? 'many' : null);
    const most = state.isWhole ? shown.length : Math.max(2 * NEW, body.childElementCount + NEW);
    state.shown = shown.length;
    state.place = 0;
    keyed(body, shown.slice(0, most), options.key, create, update);
    state.from = state.from + TURNS < shown.length ? state.from + TURNS : 0;
    if (shown.length > most) state.next = requestAnimationFrame(() => draw(shown));
  }

  return {
    update(items, snapshot) {
      state.snapshot = snapshot;
      setHidden(empty, items.length > 0);
      // While no proxy has answered, it is not known what there is.
      setText(empty, options.isKnown ? options.none : emptyText(options.none, snapshot));
      setHidden(holder, items.length === 0);
      rows.show(items, draw);
    },
    /** The row of a rule, which stays visible from now on; `undefined` when there is none. */
    find(name) {
      state.isWhole = true;
      rows.pin(name);
      state.isWhole = false;
      return [...body.children].find((row) => row.dataset.rule === name);
    },
  };
}

/** A column of text. */
export function words(label, of, className) {
  return {
    label,
    className,
    make() {
      const node = el('span', {});
      return { node, set: (item, snapshot) => setText(node, of(item, snapshot)) };
    },
  };
}
