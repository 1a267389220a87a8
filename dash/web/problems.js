// "What is wrong now": the first content of the page, also for screen readers.

import { el, keyed, setAttribute, setHidden, setText, sign, setSign } from './dom.js';
import { ago, clock, plural } from './format.js';

const FIRST = 8;
/** The number of problems of one kind that are shown by default: fifty dead proxies must not hide the canary that fails. */
const OF_A_KIND = 3;
const SECTIONS = { canaries: 'Canary', routes: 'Route', egress: 'Egress', rateLimits: 'Limit', drift: 'Drift', endpoints: 'Proxy' };
const SEVERITIES = { error: 'Error', warning: 'Warning' };

const keyOf = (problem) => [problem.kind, problem.section, problem.rule, problem.subject].join('\n');

export function problems(section, link) {
  const list = section.querySelector('.problem-list');
  const empty = section.querySelector('.empty');
  const count = section.querySelector('#problems-count');
  const more = section.querySelector('.more');
  const announce = document.getElementById('announce');
  let known = null;
  let all = false;
  let snapshot = null;

  more.addEventListener('click', () => {
    all = !all;
    draw();
  });

  function create() {
    const mark = sign('error');
    const severity = el('span', {});
    const where = el('span', { class: 'where' });
    const text = el('a', {});
    const since = el('time', {});
    const head = el('span', { class: 'severity' }, mark, severity);
    return { node: el('li', {}, head, el('span', { class: 'what' }, where, text), since), mark, severity, where, text, since };
  }

  function update(row, problem) {
    setAttribute(row.node, 'class', problem.severity);
    setSign(row.mark, problem.severity === 'error' ? 'error' : 'warning');
    setText(row.severity, SEVERITIES[problem.severity] ?? problem.severity);
    const where = SECTIONS[problem.section] ?? '';
    setText(row.where, problem.text.toLowerCase().startsWith(where.toLowerCase()) ? '' : where);
    setText(row.text, problem.text);
    setAttribute(row.text, 'href', link(problem.section, problem.rule));
    setText(row.since, problem.since == null ? '' : ago(problem.since, snapshot.at));
    if (problem.since != null) {
      setAttribute(row.since, 'datetime', new Date(problem.since * 1000).toISOString());
      setAttribute(row.since, 'title', `since ${clock(problem.since)}`);
    }
  }

  function draw() {
    const found = snapshot.problems;
    const kinds = {};
    const first = found.filter(({ kind }) => (kinds[kind] = (kinds[kind] ?? 0) + 1) <= OF_A_KIND).slice(0, FIRST);
    keyed(list, all ? found : first, keyOf, create, update);
    setHidden(more, found.length === first.length);
    setText(more, all ? 'Show the worst only' : `Show all ${found.length}`);
    more.setAttribute('aria-expanded', String(all));
  }

  return {
    /** `fresh`: the cluster has changed, so its problems are not new. */
    update(next, fresh) {
      snapshot = next;
      const found = next.problems;
      setHidden(empty, found.length > 0);
      setHidden(list, found.length === 0);
      const alive = next.endpoints.filter((endpoint) => endpoint.alive).length;
      setText(
        empty,
        next.endpoints.length === 0
          ? 'No proxies are watched in this cluster.'
          : `Nothing is wrong. ${plural(alive, 'proxy answers', 'proxies answer')}, no breaker is open, nobody was refused egress.`,
      );
      const errors = found.filter((problem) => problem.severity === 'error').length;
      setText(count, found.length ? [errors && plural(errors, 'error'), found.length - errors && plural(found.length - errors, 'warning')].filter(Boolean).join(', ') : '');
      setAttribute(section, 'data-worst', errors ? 'error' : found.length ? 'warning' : 'ok');
      draw();
      const before = fresh ? null : known;
      known = new Set(found.map(keyOf));
      // Only new problems are announced, once: otherwise screen readers would read the list each second.
      const news = before ? found.filter((problem) => !before.has(keyOf(problem))) : [];
      if (news.length) setText(announce, news.map((problem) => `${SEVERITIES[problem.severity] ?? ''}: ${problem.text}.`).join(' '));
    },
  };
}
