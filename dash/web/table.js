// A table of a section with one row for each rule, updated in place.

import { el, keyed, setAttribute, setHidden, setText } from './dom.js';
import { list } from './list.js';

/**
 * Adds a table to `section`. `columns` are `{label, make()}` where `make` returns `{node, set(item, snapshot)}`; the first
 * column is the row's heading. `options`: `caption`, `none` (the text of an empty table) and those of a list.
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
  const holder = el('div', { class: 'scroll' }, node);
  const empty = el('p', { class: 'empty', hidden: true }, options.none);
  section.append(empty, holder);
  const rows = list(holder, options);
  const state = { snapshot: null };

  function create(item) {
    const cells = columns.map((column, index) => {
      const cell = column.make(item);
      const head = index === 0;
      const attributes = { role: head ? 'rowheader' : 'cell', scope: head && 'row', 'data-label': column.label, class: column.className };
      return { set: cell.set, node: el(head ? 'th' : 'td', attributes, cell.node) };
    });
    return { node: el('tr', { role: 'row', tabindex: '-1', 'data-rule': options.key(item) }, ...cells.map((cell) => cell.node)), cells };
  }

  function update(row, item) {
    for (const cell of row.cells) cell.set(item, state.snapshot);
    setAttribute(row.node, 'data-state', options.state?.(item) ?? null);
  }

  return {
    update(items, snapshot) {
      state.snapshot = snapshot;
      setHidden(empty, items.length > 0);
      setHidden(holder, items.length === 0);
      rows.show(items, (shown) => keyed(body, shown, options.key, create, update));
    },
    /** The row of a rule, which stays visible from now on; `undefined` when there is none. */
    find(name) {
      rows.pin(name);
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
