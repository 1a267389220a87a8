// Rates over a longer time, with marks where a policy was reloaded, a variant was rolled back, or a ramp reached its next step.

import { api, Refused } from './api.js';
import { badge } from './badge.js';
import { el, keyed, setAttribute, setHidden, setText, svg } from './dom.js';
import { count, plural, rate, span } from './format.js';

const RANGES = [
  [900, '15 minutes'],
  [3600, '1 hour'],
  [6 * 3600, '6 hours'],
  [24 * 3600, '1 day'],
  [7 * 24 * 3600, '7 days'],
];
const CHARTS = [
  ['requests', 'Requests', ''],
  ['refused', 'Refused', 'bad'],
  ['errors', 'Errors of upstreams (5xx)', 'bad'],
];
const MARKS = { reload: ['note', 'Reload'], rollback: ['error', 'Rollback'], ramp: ['ok', 'Ramp'] };
const WIDTH = 600;
const HEIGHT = 90;
/** Seconds between two polls. */
const EACH = 10;

/** The smallest of 1, 2 and 5 times a power of ten that is not below the value: the top of an axis is a round number. */
function ceiling(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value * (1 - 1e-9));
}

/** A time, with its day when the range is longer than a day. */
const stamp = (at, range) => new Date(at * 1000).toLocaleString('en-GB', { ...(range > 86_400 && { day: '2-digit', month: 'short' }), hour: '2-digit', minute: '2-digit', ...(range <= 3600 && { second: '2-digit' }) });

function chart([name, label, kind]) {
  const area = svg('path', { class: 'area' });
  const line = svg('path', {});
  const dots = svg('path', { class: 'dots' });
  const middle = svg('line', { class: 'grid', x1: 0, x2: WIDTH, y1: HEIGHT / 2, y2: HEIGHT / 2 });
  const marks = svg('g', {});
  const now = el('span', { class: 'now' });
  const [highest, half, nothing] = [el('span', { class: 'highest' }), el('span', { class: 'half' }), el('span', { class: 'nothing' }, 'Nothing seen in this time')];
  const ends = [el('span', {}), el('span', {}), el('span', {})];
  const drawing = svg('svg', { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: 'none', role: 'img' }, middle, area, line, dots, marks);
  const scale = el('div', { class: 'scale', 'aria-hidden': 'true' }, highest, half, el('span', { class: 'zero' }, '0'));
  const node = el(
    'div',
    { class: `chart ${kind}` },
    el('div', { class: 'head' }, el('h3', {}, label), now),
    el('div', { class: 'plot' }, scale, el('div', { class: 'field' }, drawing, nothing)),
    el('div', { class: 'ends' }, ...ends),
  );
  return {
    node,
    set(history) {
      const points = history.points.map((point) => [point.at, point[name]]);
      const most = Math.max(0, ...points.map(([, value]) => value));
      const top = ceiling(most);
      const x = (at) => (((at - history.from) / (history.to - history.from)) * WIDTH).toFixed(1);
      const y = (value) => (HEIGHT - (HEIGHT * value) / top).toFixed(1);
      // A time without points is drawn as a gap.
      let path = '';
      let fill = '';
      let single = '';
      let before = null;
      let begun = null;
      const close = () => begun != null && (fill += `L${x(before)} ${HEIGHT}L${x(begun)} ${HEIGHT}Z`);
      const goesOnTo = (index) => points[index] != null && points[index - 1] != null && points[index][0] - points[index - 1][0] <= 3 * history.step;
      for (const [index, [at, value]] of points.entries()) {
        const goesOn = goesOnTo(index);
        // A line of one point would be none.
        if (!goesOn && !goesOnTo(index + 1)) single += `M${x(at)} ${y(value)}h0`;
        if (!goesOn) {
          close();
          begun = at;
        }
        const part = `${goesOn ? 'L' : 'M'}${x(at)} ${y(value)}`;
        path += part;
        fill += part;
        before = at;
      }
      close();
      setAttribute(line, 'd', path);
      setAttribute(area, 'd', fill);
      setAttribute(dots, 'd', single);
      keyed(
        marks,
        history.marks,
        (mark) => `${mark.at} ${mark.kind} ${mark.name}`,
        (mark) => ({ node: svg('line', { class: mark.kind, y1: 0, y2: HEIGHT }, svg('title', {}, `${MARKS[mark.kind][1]}: ${mark.name}`)) }),
        (row, mark) => ['x1', 'x2'].forEach((end) => setAttribute(row.node, end, x(mark.at))),
      );
      const [lastAt, last] = points.at(-1) ?? [];
      // Where nothing was seen lately, nothing is known of now.
      const says = !points.length ? 'nothing seen' : `${history.to - lastAt <= 3 * history.step ? `${rate(last)} now` : 'nothing seen now'}, at most ${rate(most)}`;
      setText(now, says);
      setAttribute(drawing, 'aria-label', `${label}: ${says}, with ${plural(history.marks.length, 'mark')}`);
      setHidden(nothing, points.length > 0);
      setAttribute(middle, 'visibility', points.length ? null : 'hidden');
      setText(highest, rate(top));
      setText(half, rate(top / 2));
      const range = history.to - history.from;
      ends.forEach((end, index) => setText(end, stamp(history.from + (range * index) / 2, range)));
    },
  };
}

/** `share(range)` stores the range in the URL. */
export function history(section, share) {
  const state = { cluster: null, range: RANGES[0][0], at: 0, turn: 0, paused: false };
  const select = el('select', { 'aria-label': 'Time range' }, ...RANGES.map(([seconds, words]) => el('option', { value: seconds }, words)));
  const charts = CHARTS.map(chart);
  const marks = el('ol', { class: 'marks', 'aria-label': 'What changed' });
  const source = el('p', { class: 'hint' });
  section.querySelector('.head').append(select);
  section.append(el('div', { class: 'charts' }, ...charts.map(({ node }) => node)), marks, source);

  function draw(found) {
    for (const each of charts) each.set(found);
    const range = found.to - found.from;
    const shown = [...found.marks].reverse().slice(0, 20);
    keyed(
      marks,
      shown,
      (mark) => `${mark.at} ${mark.kind} ${mark.name}`,
      (mark) => {
        const sign = badge();
        sign.set(...MARKS[mark.kind]);
        const text = el('span', {});
        return { node: el('li', {}, el('time', { datetime: new Date(mark.at * 1000).toISOString() }, stamp(mark.at, range)), sign.node, text), text };
      },
      (row, mark) => setText(row.text, `${mark.name}${mark.proxies > 1 ? ` in ${plural(mark.proxies, 'proxy', 'proxies')}` : ''}`),
    );
    setHidden(marks, shown.length === 0);
    const seen = found.since == null ? 'nothing yet' : `the last ${span(found.to - found.since)}`;
    setText(
      source,
      [
        found.source === 'prometheus' ? 'From Prometheus.' : `From what this dash has seen since it started: ${seen}. With a Prometheus as a source there is more.`,
        found.error ? `Prometheus does not answer: ${found.error}` : '',
        found.marks.length + found.replacedMarks > shown.length ? `${count(found.marks.length + found.replacedMarks - shown.length)} other changes are not listed.` : '',
      ]
        .filter(Boolean)
        .join(' '),
    );
  }

  async function ask() {
    if (!state.cluster || state.paused || !section.checkVisibility()) return;
    const turn = (state.turn += 1);
    state.at = performance.now() / 1000;
    try {
      const found = await api.history(state.cluster, state.range);
      if (turn === state.turn) draw(found);
    } catch (error) {
      // The page's own timer reports problems with the dash.
      if (!(error instanceof Refused)) throw error;
    }
  }

  select.addEventListener('change', () => {
    state.range = Number(select.value);
    share({ range: state.range });
    ask();
  });

  return {
    update(_, snapshot) {
      if (state.cluster === snapshot.cluster && performance.now() / 1000 - state.at < EACH) return;
      state.cluster = snapshot.cluster;
      ask();
    },
    pause(paused) {
      state.paused = paused;
    },
    forget() {
      state.cluster = null;
      state.turn += 1;
    },
    filterBy({ range }) {
      if (!RANGES.some(([seconds]) => seconds === Number(range))) return;
      state.range = Number(range);
      select.value = String(range);
      ask();
    },
  };
}
