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

/** A time, with its day when the range is longer than a day. */
const stamp = (at, range) => new Date(at * 1000).toLocaleString('en-GB', { ...(range > 86_400 && { day: '2-digit', month: 'short' }), hour: '2-digit', minute: '2-digit', ...(range <= 3600 && { second: '2-digit' }) });

function chart([name, label, kind]) {
  const area = svg('path', { class: 'area' });
  const line = svg('path', {});
  const marks = svg('g', {});
  const now = el('span', { class: 'now' });
  const from = el('span', {});
  const to = el('span', {});
  const drawing = svg('svg', { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: 'none', role: 'img' }, area, line, marks);
  const node = el('div', { class: `chart ${kind}` }, el('div', { class: 'head' }, el('h3', {}, label), now), drawing, el('div', { class: 'ends' }, from, to));
  return {
    node,
    set(history) {
      const points = history.points.map((point) => [point.at, point[name]]);
      const top = Math.max(...points.map(([, value]) => value), 0.001);
      const x = (at) => (((at - history.from) / (history.to - history.from)) * WIDTH).toFixed(1);
      const y = (value) => (HEIGHT - 2 - ((HEIGHT - 8) * value) / top).toFixed(1);
      // A time without points is drawn as a gap.
      let path = '';
      let fill = '';
      let before = null;
      let begun = null;
      const close = () => begun != null && (fill += `L${x(before)} ${HEIGHT}L${x(begun)} ${HEIGHT}Z`);
      for (const [at, value] of points) {
        const goesOn = before != null && at - before <= 3 * history.step;
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
      keyed(
        marks,
        history.marks,
        (mark) => `${mark.at} ${mark.kind} ${mark.name}`,
        (mark) => ({ node: svg('line', { class: mark.kind, y1: 0, y2: HEIGHT }) }),
        (row, mark) => ['x1', 'x2'].forEach((end) => setAttribute(row.node, end, x(mark.at))),
      );
      const last = points.at(-1)?.[1];
      setText(now, points.length ? `${rate(last)} now, at most ${rate(top === 0.001 ? 0 : top)}` : 'nothing seen');
      setAttribute(drawing, 'aria-label', `${label}: ${points.length ? `${rate(last)} now, at most ${rate(top === 0.001 ? 0 : top)}` : 'nothing seen'}, with ${plural(history.marks.length, 'mark')}`);
      setText(from, stamp(history.from, history.to - history.from));
      setText(to, stamp(history.to, history.to - history.from));
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
        found.marks.length > shown.length ? `${count(found.marks.length - shown.length)} earlier changes are not listed.` : '',
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
