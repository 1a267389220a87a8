// "What is wrong now": the first content of the page, also for screen readers.

import { el, keyed, setAttribute, setHidden, setText, sign, setSign } from './dom.js';
import { ago, clock, count, plural } from './format.js';

const FIRST = 8;
/** The number of problems of one kind that are shown by default: fifty dead proxies must not hide the canary that fails. */
const OF_A_KIND = 3;
const SECTIONS = { canaries: 'Canary', routes: 'Route', egress: 'Egress', rateLimits: 'Limit', drift: 'Drift', endpoints: 'Proxy' };
const SEVERITIES = { error: 'Error', warning: 'Warning' };

const keyOf = (problem) => [problem.kind, problem.section, problem.rule, problem.subject].join('\n');

export function problems(section, link) {
  const list = section.querySelector('.problem-list');
  const health = section.querySelector('.health');
  const unknown = section.querySelector('.unknown');
  const counted = section.querySelector('#problems-count');
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
    setText(more, all ? 'Show the worst only' : `Show all ${found.length}${snapshot.moreProblems ? ` of ${count(found.length + snapshot.moreProblems)}` : ''}`);
    more.setAttribute('aria-expanded', String(all));
  }

  /** What is known of the cluster: the list of problems, or a sentence; and what is not known. */
  function tell(state, text, missing) {
    setAttribute(section, 'data-worst', state);
    setHidden(health, snapshot.problems.length > 0);
    setText(health, text);
    setHidden(unknown, missing.length === 0);
    keyed(
      unknown,
      missing,
      (sentence) => sentence,
      (sentence) => ({ node: el('li', {}, sentence) }),
      () => {},
    );
  }

  return {
    /** `fresh`: the cluster has changed, so its problems are not new. */
    update(next, fresh) {
      snapshot = next;
      const found = next.problems;
      setHidden(list, found.length === 0);
      tell(next.health?.state ?? 'unknown', next.health?.text ?? '', next.health?.unknown ?? []);
      const errors = found.filter((problem) => problem.severity === 'error').length;
      setText(counted, found.length ? [errors && plural(errors, 'error'), found.length - errors && plural(found.length - errors, 'warning')].filter(Boolean).join(', ') : '');
      draw();
      const before = fresh ? null : known;
      known = new Set(found.map(keyOf));
      // Only new problems are announced, once: otherwise screen readers would read the list each second.
      const news = before ? found.filter((problem) => !before.has(keyOf(problem))) : [];
      if (news.length) setText(announce, news.map((problem) => `${SEVERITIES[problem.severity] ?? ''}: ${problem.text}.`).join(' '));
    },
    /** The data is from this time, and newer data does not come: that nothing was wrong then says nothing about now. */
    old(since) {
      if (snapshot?.health?.state === 'ok') tell('unknown', `Nothing was wrong at ${clock(since)}. What is wrong now is not known.`, []);
    },
  };
}
