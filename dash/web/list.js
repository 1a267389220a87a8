// Selects and orders the rules of a section: the busiest fifty, those that match a filter, or all.

import { el, setHidden, setText } from './dom.js';
import { count, plural } from './format.js';

const FILTER_FROM = 9;
/** Seconds for which an order is kept, because rows that move each second are not readable. */
const ORDER_HOLDS = 10;

/**
 * A list of rules in `root` (an element that holds the rows). `options`: `what` (their name in the plural), `key` (a rule's
 * name), `weight` (what the busiest have most of), `text` (the text that the filter searches; the name if absent),
 * `first` (how many are shown at first).
 */
export function list(root, options) {
  const { what, key, weight, text = key, first = 50 } = options;
  const filter = el('input', { type: 'search', placeholder: `Filter ${what}`, 'aria-label': `Filter ${what}`, spellcheck: 'false' });
  const found = el('span', { class: 'found', role: 'status' });
  const bar = el('div', { class: 'filter', hidden: true }, filter, found);
  const more = el('button', { type: 'button', class: 'more', hidden: true, 'aria-expanded': 'false' });
  root.before(bar);
  root.after(more);

  let all = false;
  let pinned = null;
  let order = new Map();
  let orderedAt = 0;
  let last = [];
  let again = () => {};

  function sorted(items) {
    const now = performance.now() / 1000;
    const held = root.contains(document.activeElement) || root.matches(':hover');
    const complete = items.length === order.size && items.every((item) => order.has(key(item)));
    if (!complete || (now - orderedAt > ORDER_HOLDS && !held)) {
      const ranked = [...items].sort((a, b) => weight(b) - weight(a) || key(a).localeCompare(key(b)));
      order = new Map(ranked.map((item, index) => [key(item), index]));
      orderedAt = now;
    }
    return [...items].sort((a, b) => order.get(key(a)) - order.get(key(b)));
  }

  filter.addEventListener('input', () => again());
  more.addEventListener('click', () => {
    all = !all;
    again();
  });

  return {
    /** Calls `draw` with the items to show, now and whenever the user changes the selection. */
    show(items, draw) {
      last = items;
      again = () => {
        const words = filter.value.trim().toLowerCase();
        const ranked = sorted(last);
        const matching = words ? ranked.filter((item) => text(item).toLowerCase().includes(words)) : ranked;
        let shown = all ? matching : matching.slice(0, first);
        if (pinned && !shown.some((item) => key(item) === pinned)) {
          shown = [...shown, ...last.filter((item) => key(item) === pinned)];
        }
        setHidden(bar, last.length < FILTER_FROM && !words);
        setText(found, words ? `${count(matching.length)} of ${plural(last.length, what.replace(/s$/, ''), what)}` : '');
        setHidden(more, matching.length <= first);
        setText(more, all ? `Show the busiest ${first}` : `Show all ${count(matching.length)} ${what}`);
        more.setAttribute('aria-expanded', String(all));
        draw(shown);
      };
      again();
    },
    /** Always shows this rule from now on. */
    pin(name) {
      pinned = name;
      filter.value = '';
      again();
    },
  };
}
