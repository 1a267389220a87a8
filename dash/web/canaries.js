// Canaries: for each variant the intended and the actual share, its errors, its breaker, and the ramp.

import { badge, breaker } from './badge.js';
import { el, keyed, setAttribute, setHidden, setStyle, setText } from './dom.js';
import { ago, clock, count, day, NONE, percent, rate as rateText } from './format.js';
import { list } from './list.js';
import { rate } from './spark.js';
import { emptyText } from './table.js';

const sum = (canary) => canary.variants.reduce((all, variant) => all + (variant.perSecond ?? 0), 0);

function bar(index) {
  const fill = el('span', { class: 'fill' });
  const mark = el('span', { class: 'mark' });
  const node = el('span', { class: `bar v${index % 6}`, 'aria-hidden': 'true' }, fill, mark);
  return {
    node,
    set(observed, wanted) {
      setStyle(fill, 'width', `${((observed ?? 0) * 100).toFixed(1)}%`);
      setStyle(mark, 'left', `${((wanted ?? 0) * 100).toFixed(1)}%`);
      setHidden(mark, wanted == null);
    },
  };
}

function variantRow(variant, index) {
  const name = el('span', { class: 'name' });
  const state = badge();
  const shares = bar(index);
  const observed = el('strong', {});
  const wanted = el('span', {});
  const requests = rate();
  const errors = badge();
  const total = el('span', {});
  const cell = (label, className, ...content) => el('td', { role: 'cell', 'data-label': label, class: className }, ...content);
  const node = el(
    'tr',
    { role: 'row' },
    el('th', { scope: 'row', role: 'rowheader', 'data-label': 'Variant' }, name, state.node),
    cell('Share', 'share', shares.node, el('span', { class: 'share-text' }, observed, wanted)),
    cell('Requests', 'number', requests.node),
    cell('Errors', 'number', errors.node),
    cell('Total', 'number', total),
  );
  return { node, name, state, shares, observed, wanted, requests, errors, total };
}

function updateVariant(row, variant) {
  setText(row.name, variant.name);
  breaker(row.state, variant.breaker === 'closed' ? null : variant.breaker);
  row.shares.set(variant.observed, variant.wanted);
  setText(row.observed, variant.observed == null ? percent(null) : `${percent(variant.observed)} (${count(variant.recent)})`);
  setText(row.wanted, variant.wanted == null ? '' : ` of ${percent(variant.wanted)} wanted`);
  row.requests.set(variant);
  const failing = variant.errorsPerSecond > 0;
  const share = variant.perSecond > 0 ? Math.min(1, variant.errorsPerSecond / variant.perSecond) : null;
  // A variant without requests has no errors, but that does not mean that it works.
  if (variant.errorsPerSecond == null || (!failing && !(variant.perSecond > 0))) row.errors.set('note', NONE);
  else row.errors.set(failing ? (share >= 0.05 ? 'error' : 'warning') : 'ok', failing ? `${rateText(variant.errorsPerSecond)}${share == null ? '' : ` (${percent(share)}, ${count(Math.min(variant.errors, variant.recent))} of ${count(variant.recent)})`}` : 'none');
  setText(row.total, count(variant.total));
  setAttribute(row.node, 'data-state', variant.breaker === 'open' ? 'error' : null);
}

function rampOf() {
  const title = el('h4', {});
  const steps = el('ol', {});
  const node = el('div', { class: 'ramp', hidden: true }, title, steps);
  return {
    node,
    set(ramp, now) {
      setHidden(node, !ramp);
      if (!ramp) return;
      setText(title, `Ramp of ${ramp.variant}, since ${day(ramp.start)} ${clock(ramp.start)}`);
      const current = ramp.steps.findLastIndex((step) => step.reached);
      const all = ramp.steps.map((step, index) => ({ ...step, index, current: index === current }));
      keyed(
        steps,
        all,
        (step) => String(step.index),
        () => {
          const weight = el('strong', {});
          const at = el('span', {});
          return { node: el('li', {}, weight, at), weight, at };
        },
        (row, step) => {
          setAttribute(row.node, 'class', step.current ? 'current' : step.reached ? 'reached' : 'ahead');
          setAttribute(row.node, 'aria-current', step.current ? 'step' : null);
          setText(row.weight, `${step.weight} %`);
          setText(row.at, step.current ? `now, since ${clock(step.at)}` : step.reached ? `✓ ${clock(step.at)}` : ago(step.at, now));
        },
      );
    },
  };
}

export function canaries(section, show) {
  const empty = el('p', { class: 'empty', hidden: true }, 'No policy in this cluster has a canary.');
  const holder = el('div', { class: 'canary-list' });
  section.append(empty, holder);
  const state = { at: 0 };
  const rows = list(holder, { what: 'canaries', key: (canary) => canary.name, weight: sum, text: (canary) => `${canary.name} ${canary.variants.map((variant) => variant.name).join(' ')}` });

  function create(canary) {
    const name = el('button', { type: 'button', class: 'link' }, canary.name);
    name.addEventListener('click', () => show(canary.name));
    const variants = el('tbody', { role: 'rowgroup' });
    const heads = ['Variant', 'Share', 'Requests', 'Errors', 'Total'].map((label, index) => el('th', { scope: 'col', role: 'columnheader', class: index > 1 && 'number' }, label));
    const caption = el('caption', { class: 'hidden' });
    const table = el('table', { role: 'table' }, caption, el('thead', { role: 'rowgroup' }, el('tr', { role: 'row' }, ...heads)), variants);
    const ramp = rampOf();
    return { node: el('article', { class: 'canary', tabindex: '-1', 'data-rule': canary.name }, el('h3', {}, name), table, ramp.node), caption, variants, ramp };
  }

  function update(row, canary) {
    setText(row.caption, `Variants of the canary ${canary.name}: share, requests and errors`);
    const numbered = canary.variants.map((variant, index) => ({ ...variant, index }));
    keyed(row.variants, numbered, (variant) => variant.name, (variant) => variantRow(variant, variant.index), updateVariant);
    row.ramp.set(canary.ramp, state.at);
  }

  return {
    update(items, snapshot) {
      state.at = snapshot.at;
      setHidden(empty, items.length > 0);
      setText(empty, emptyText('No policy in this cluster has a canary.', snapshot));
      setHidden(holder, items.length === 0);
      rows.show(items, (shown) => keyed(holder, shown, (canary) => canary.name, create, update));
    },
    find(name) {
      rows.pin(name);
      return [...holder.children].find((node) => node.dataset.rule === name);
    },
  };
}
