// The live feed of decisions: whose requests were refused, by which rule, and why. A click on a rule shows it; "Explain" runs the engine.

import { api, Refused } from './api.js';
import { badge } from './badge.js';
import { el, keyed, setAttribute, setHidden, setText } from './dom.js';
import { clock, count, NONE, plural } from './format.js';

/** The maximum number of lines in the page. */
const KEPT = 200;
const OUTCOMES = { refused: ['error', 'Refused'], heldBack: ['warning', 'Would be refused'], redirected: ['note', 'Redirected'], passed: ['ok', 'Passed'] };
const SECTIONS = { egress: 'Egress', rateLimits: 'Limit', routes: 'Route', canaries: 'Canary', host: 'Failure' };

const FIELDS = [
  ['rule', 'Rule, owner or reason'],
  ['caller', 'Caller or address'],
  ['host', 'Host'],
  ['proxy', 'Proxy or namespace'],
];

/** `egress: stripe`. */
export const placeOf = (decision) => (decision.section ? `${SECTIONS[decision.section] ?? decision.section}${decision.rule ? `: ${decision.rule}` : ''}` : NONE);

/** `show(decision)` opens the rule of a decision, and `explain(decision)` the form; `share(filter)` stores a filter in the URL. */
export function decisions(section, { show, explain, share }) {
  const state = { cluster: null, after: 0, lines: [], filter: { outcome: 'refusals' }, paused: false, enabled: false, turn: 0 };
  const off = el(
    'p',
    { class: 'empty', hidden: true },
    'No access log comes here. Start the dash with --als 127.0.0.1:9912 and let Envoy send its access log there, or with --tail FILE: docs/dash.md has both.',
  );
  const inputs = Object.fromEntries(
    FIELDS.map(([name, label]) => [name, el('input', { type: 'search', placeholder: label, 'aria-label': `Filter decisions: ${label}`, spellcheck: 'false', name })]),
  );
  const outcome = el(
    'select',
    { 'aria-label': 'Filter decisions: outcome', name: 'outcome' },
    el('option', { value: 'refusals' }, 'Refusals'),
    el('option', { value: 'all' }, 'All'),
    el('option', { value: 'others' }, 'Passed'),
  );
  const found = el('span', { class: 'found', role: 'status' });
  const filters = el('form', { class: 'filter' }, ...Object.values(inputs), outcome, found);
  const heads = ['Time', 'Outcome', 'Rule', 'Reason', 'Who', 'Request', 'Proxy', 'Id', ''].map((label) =>
    el('th', { scope: 'col', role: 'columnheader' }, label || el('span', { class: 'hidden' }, 'Actions')),
  );
  const body = el('tbody', { role: 'rowgroup' });
  const node = el(
    'table',
    { role: 'table', class: 'decisions' },
    el('caption', { class: 'hidden' }, 'Decisions, the newest first'),
    el('thead', { role: 'rowgroup' }, el('tr', { role: 'row' }, ...heads)),
    body,
  );
  // Can be scrolled by keyboard, too.
  const holder = el('div', { class: 'scroll feed', tabindex: '0', role: 'region', 'aria-label': 'Decisions' }, node);
  const none = el('p', { class: 'empty', hidden: true });
  const kept = el('p', { class: 'hint' });
  section.append(off, filters, none, holder, kept);

  function create(decision) {
    const mark = badge();
    mark.set(...(OUTCOMES[decision.outcome] ?? ['note', decision.outcome]));
    const place = decision.rule && decision.section !== 'host' ? el('button', { type: 'button', class: 'link' }, placeOf(decision)) : el('span', {}, placeOf(decision));
    if (place.tagName === 'BUTTON') place.addEventListener('click', () => show(decision));
    const ask = el('button', { type: 'button', class: 'small', 'aria-label': `Explain ${decision.method} ${decision.host}${decision.path}` }, 'Explain');
    ask.addEventListener('click', () => explain(decision));
    const request = `${decision.method || '?'} ${decision.host}${decision.path}${decision.hadQuery ? '?…' : ''}`;
    const who = [decision.caller, decision.address].filter(Boolean);
    const cells = [
      ['Time', el('time', { datetime: new Date(decision.at * 1000).toISOString() }, clock(decision.at))],
      ['Outcome', el('span', {}, mark.node, ` ${decision.status || ''}`)],
      ['Rule', el('span', {}, place, decision.owner ? el('span', { class: 'also' }, ` ${decision.owner}`) : null)],
      ['Reason', el('span', {}, decision.reason ?? NONE)],
      ['Who', el('span', {}, who.length ? who.join(', ') : NONE)],
      ['Request', el('span', { class: 'request' }, request)],
      ['Proxy', el('span', {}, [decision.proxy, decision.namespace].filter(Boolean).join(' in ') || NONE)],
      ['Id', el('code', {}, decision.id ?? NONE)],
      ['', ask],
    ];
    const row = cells.map(([label, cell], index) =>
      el(index ? 'td' : 'th', { role: index ? 'cell' : 'rowheader', scope: !index && 'row', 'data-label': label, class: ['Reason', 'Who', 'Request', 'Proxy', 'Id'].includes(label) && 'long' }, cell),
    );
    return { node: el('tr', { role: 'row', tabindex: '-1', 'data-seq': decision.seq, 'data-state': decision.outcome === 'refused' ? 'error' : decision.outcome === 'heldBack' ? 'warning' : null }, ...row) };
  }

  function draw() {
    keyed(body, state.lines, (line) => String(line.seq), create, () => {});
  }

  function tell(answer) {
    setHidden(off, answer.enabled);
    for (const part of [filters, kept]) setHidden(part, !answer.enabled);
    setHidden(holder, !answer.enabled || state.lines.length === 0);
    setHidden(none, !answer.enabled || state.lines.length > 0);
    const wishes = Object.values(state.filter).some((wish) => wish && wish !== 'refusals');
    setText(none, wishes ? 'No decision that is kept matches.' : `No refusals yet. ${plural(answer.counts.received, 'request')} came in access logs.`);
    setText(found, state.lines.length ? `${plural(state.lines.length, 'decision')}${answer.more || state.lines.length >= KEPT ? ', the newest' : ''}` : '');
    const { received, dropped, droppedRefusals, replaced } = answer.counts;
    const troubles = [
      dropped && `${count(dropped)} dropped because too many came at once (${count(droppedRefusals)} of them refusals)`,
      replaced && `${count(replaced)} older ones gone`,
      answer.proxiesDropped && `${count(answer.proxiesDropped)} dropped by the proxies`,
      answer.counts.forgottenSenders && `${plural(answer.counts.forgottenSenders, 'sender')} forgotten for others`,
      answer.unreadable && `${count(answer.unreadable)} lines not read`,
      ...answer.sources.flatMap((source) => [
        source.refusedStreams && `${plural(source.refusedStreams, 'stream')} refused`,
        source.closedConnections && `${plural(source.closedConnections, 'connection')} closed`,
      ]),
      ...answer.sources.filter((source) => source.error).map((source) => `${source.name}: ${source.error}`),
    ].filter(Boolean);
    const from = answer.sources.map((source) => `${source.name} (${source.open} open)`).join(', ');
    setText(kept, `${plural(received, 'request')} from ${from}${answer.since ? `; kept since ${clock(answer.since)}` : ''}. ${troubles.length ? `${troubles.join('; ')}.` : 'Nothing was dropped.'}`);
    setAttribute(kept, 'data-kind', dropped || answer.proxiesDropped ? 'warning' : null);
  }

  async function ask() {
    // Hidden while the page asks for another cluster or a token.
    if (!state.cluster || state.paused || !section.checkVisibility()) return;
    const turn = (state.turn += 1);
    const { cluster, after } = state;
    try {
      const answer = await api.decisions(cluster, { ...state.filter, after, limit: KEPT });
      if (turn !== state.turn) return;
      // The dash was restarted, so its sequence numbers start again.
      if (answer.newest < after) {
        state.after = 0;
        state.lines = [];
        return;
      }
      state.enabled = answer.enabled;
      state.after = answer.newest;
      state.lines = [...answer.decisions, ...state.lines].slice(0, KEPT);
      if (answer.decisions.length || after === 0) draw();
      tell(answer);
    } catch (error) {
      // The page's own timer reports problems with the dash.
      if (!(error instanceof Refused)) throw error;
    }
  }

  function again() {
    state.after = 0;
    state.lines = [];
    state.turn += 1;
    ask();
  }

  function filterBy(filter) {
    state.filter = { outcome: 'refusals', ...filter };
    for (const [name, input] of Object.entries(inputs)) input.value = state.filter[name] ?? '';
    outcome.value = state.filter.outcome;
  }

  function changed() {
    state.filter = Object.fromEntries([...Object.entries(inputs).map(([name, input]) => [name, input.value.trim()]), ['outcome', outcome.value]]);
    share(state.filter);
    again();
  }

  let typing;
  filters.addEventListener('input', () => {
    clearTimeout(typing);
    typing = setTimeout(changed, 200);
  });
  filters.addEventListener('submit', (event) => {
    event.preventDefault();
    clearTimeout(typing);
    changed();
  });

  // More often than the counters, so that a refusal appears within a second; less often when there is no access log.
  let ticks = 0;
  setInterval(() => {
    ticks += 1;
    if (!document.hidden && (state.enabled || ticks % 20 === 0)) ask();
  }, 500);

  return {
    /** Shows the decisions of this cluster from now on. */
    update(_, snapshot) {
      if (state.cluster === snapshot.cluster) return;
      state.cluster = snapshot.cluster;
      again();
    },
    pause(paused) {
      state.paused = paused;
    },
    forget() {
      state.cluster = null;
      state.lines = [];
      state.turn += 1;
      draw();
    },
    filterBy(filter) {
      filterBy(filter);
      again();
    },
  };
}
