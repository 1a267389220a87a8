// A rate as a number, with its last minute as a small line chart.

import { el, setAttribute, setText, svg } from './dom.js';
import { rate as rateText } from './format.js';

const POINTS = 60;
const WIDTH = 84;
const HEIGHT = 22;

function line(history, top) {
  const step = WIDTH / (POINTS - 1);
  const first = WIDTH - (history.length - 1) * step;
  return history
    .map((value, index) => {
      const y = HEIGHT - 1.5 - ((HEIGHT - 3) * value) / top;
      return `${index ? 'L' : 'M'}${(first + index * step).toFixed(1)} ${y.toFixed(1)}`;
    })
    .join('');
}

/** A rate with its line. `set` takes an outcome (`{perSecond, history}`), or `null` when it is unknown. */
export function rate(kind = '') {
  const area = svg('path', { class: 'area' });
  const stroke = svg('path', { class: 'stroke' });
  const attributes = { class: 'spark', viewBox: `0 0 ${WIDTH} ${HEIGHT}`, 'aria-hidden': 'true', focusable: 'false' };
  const drawing = svg('svg', attributes, area, stroke);
  const text = el('span', { class: 'value' });
  const node = el('span', { class: `rate ${kind}` }, drawing, text);
  return {
    node,
    set(outcome) {
      setText(text, rateText(outcome?.perSecond));
      const history = (outcome?.history ?? []).slice(-POINTS).map((value) => value ?? 0);
      const top = Math.max(...history, 0.001);
      const quiet = !history.some((value) => value > 0);
      setAttribute(node, 'data-quiet', quiet ? '' : null);
      const path = history.length > 1 ? line(history, top) : '';
      setAttribute(stroke, 'd', path);
      const start = WIDTH - (history.length - 1) * (WIDTH / (POINTS - 1));
      setAttribute(area, 'd', path && !quiet ? `${path}L${WIDTH} ${HEIGHT}L${start.toFixed(1)} ${HEIGHT}Z` : '');
    },
  };
}
