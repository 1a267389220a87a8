// The page's state: which cluster is shown, whether it is live, and the dash's last responses.

import { api, Refused, token } from './api.js';
import { canaries } from './canaries.js';
import { decisions } from './decisions.js';
import { el, keyed, setAttribute, setHidden, setSign, setText, sign } from './dom.js';
import { clock, count, NONE, percent, plural, rate, span } from './format.js';
import { topology } from './graph.js';
import { history as historyOf } from './history.js';
import { inspector } from './inspect.js';
import { problems } from './problems.js';
import { drift, endpoints } from './proxies.js';
import { egress, rateLimits, refusals, routes } from './rules.js';
import { themes } from './theme.js';

const at = (id) => document.getElementById(id);
const [view, notice, form, pause, signOut] = ['view', 'notice', 'token-form', 'pause', 'sign-out'].map(at);

const state = { me: null, clusters: [], cluster: null, shown: null, paused: false, answeredAt: null, focus: null, turn: 0, isOld: false };

// --- places: #/cluster/section/rule?filter ------------------------------------------------------------------------------------------

const place = (...parts) => `#/${parts.filter((part) => part != null).map(encodeURIComponent).join('/')}`;

function placed() {
  if (!location.hash.startsWith('#/')) return null;
  try {
    const [way, query] = location.hash.slice(2).split('?');
    const [cluster, section, ...rule] = way.split('/').map(decodeURIComponent);
    return { cluster, section, rule: rule.join('/') || null, filter: query == null ? null : Object.fromEntries(new URLSearchParams(query)) };
  } catch {
    return null;
  }
}

const link = (section, rule) => place(state.cluster, section, rule);

/** Stores what a section shows in the URL, so that it can be shared. */
function share(section, filter) {
  const wishes = new URLSearchParams(Object.entries(filter).filter(([name, wish]) => wish && !(name === 'outcome' && wish === 'refusals')));
  history.replaceState(null, '', `${link(section)}${wishes.size ? `?${wishes}` : ''}`);
}

// --- sections ----------------------------------------------------------------------------------------------------------------

const inspect = inspector(at('inspect'), () => state.cluster);
const feed = decisions(at('decisions'), {
  show: (decision) => inspect.rule(decision.section, decision.rule),
  explain: (decision) => inspect.explain(decision),
  share: (filter) => share('decisions', filter),
});
const past = historyOf(at('history'), (filter) => share('history', filter));

const SECTIONS = {
  history: past,
  decisions: feed,
  topology: topology(at('topology'), view),
  canaries: canaries(at('canaries'), (rule) => inspect.rule('canaries', rule)),
  rateLimits: rateLimits(at('rateLimits'), (rule) => inspect.rule('rateLimits', rule)),
  egress: egress(at('egress'), (rule) => inspect.rule('egress', rule)),
  routes: routes(at('routes'), (rule) => inspect.rule('routes', rule)),
  refusals: refusals(at('refusals'), inspect.rule),
  drift: drift(at('drift')),
  endpoints: endpoints(at('endpoints')),
};
const FIELDS = ['egress', 'canaries', 'routes', 'drift', 'rateLimits', 'refusals', 'endpoints'];
const wrong = problems(at('problems'), link);

/** Scrolls to a rule or a section, and focuses it. */
function reveal({ section, rule, filter }) {
  if (filter) SECTIONS[section]?.filterBy?.(filter);
  const node = at(section);
  if (!node?.closest('.sections')) return;
  const row = rule ? SECTIONS[section].find?.(rule) : null;
  const target = row ?? node;
  if (!target.hasAttribute('tabindex')) target.setAttribute('tabindex', '-1');
  target.focus({ preventScroll: true });
  target.scrollIntoView({ block: row ? 'center' : 'start', behavior: matchMedia('(prefers-reduced-motion: reduce)').matches ? 'auto' : 'smooth' });
}

// --- responses of the dash --------------------------------------------------------------------------------------------------

function drawClusters() {
  keyed(
    at('clusters'),
    state.clusters,
    (cluster) => cluster.name,
    () => {
      const name = el('span', { class: 'name' });
      const says = el('span', { class: 'says' });
      const mark = sign('ok');
      const troubles = el('span', {});
      const node = el('a', {}, name, el('span', { class: 'troubles' }, mark, troubles), says);
      return { node, name, says, mark, troubles };
    },
    (row, cluster) => {
      const { error = 0, warning = 0 } = cluster.problems ?? {};
      const isWell = cluster.state === 'ok' && !state.isOld;
      const dead = cluster.endpoints - cluster.alive;
      setAttribute(row.node, 'href', place(cluster.name));
      setAttribute(row.node, 'aria-current', cluster.name === state.cluster ? 'page' : null);
      setText(row.name, cluster.name);
      setSign(row.mark, error ? 'error' : warning ? 'warning' : isWell ? 'ok' : 'note');
      setText(row.troubles, error ? plural(error, 'error') : warning ? plural(warning, 'warning') : isWell ? 'fine' : 'not known');
      setText(row.says, `${cluster.alive > 0 ? rate(cluster.requestsPerSecond) : NONE}${dead > 0 ? `, ${dead} not answering` : ''}`);
    },
  );
}

function drawSummary(snapshot) {
  const cluster = state.clusters.find((each) => each.name === snapshot.cluster);
  const alive = snapshot.endpoints.filter((endpoint) => endpoint.alive).length;
  const versions = Math.max(0, ...snapshot.drift.map((plugin) => plugin.hashes.length));
  const share = cluster?.requestsPerSecond > 0 ? cluster.refusedPerSecond / cluster.requestsPerSecond : null;
  const open = snapshot.canaries.flatMap((canary) => canary.variants).filter((variant) => variant.breaker === 'open').length + snapshot.routes.filter((route) => route.breaker === 'open').length;
  const facts = [
    ['Requests', alive ? rate(cluster?.requestsPerSecond) : NONE, ''],
    ['Refused', alive ? rate(cluster?.refusedPerSecond) : NONE, share == null ? '' : percent(share)],
    ['Proxies', `${alive} of ${snapshot.endpoints.length}`, alive < snapshot.endpoints.length ? 'some do not answer' : alive ? 'answer' : ''],
    ['Open breakers', alive ? count(open) : NONE, ''],
    ['Policy drift', versions > 1 ? plural(versions, 'version') : versions ? 'none' : NONE, versions > 1 ? 'of one plugin' : ''],
  ];
  keyed(
    at('summary'),
    facts,
    ([label]) => label,
    ([label]) => {
      const value = el('span', { class: 'value' });
      const more = el('span', { class: 'also' });
      return { node: el('div', {}, el('dt', {}, label), el('dd', {}, value, more)), value, more };
    },
    (row, [, value, more]) => {
      setText(row.value, value);
      setText(row.more, more);
    },
  );
}

function drawJump(snapshot) {
  const names = ['topology', 'history', 'decisions', ...FIELDS];
  keyed(
    at('jump'),
    names,
    (name) => name,
    (name) => {
      const number = el('span', { class: 'count' });
      return { node: el('a', {}, at(`${name}-title`).textContent, number), number };
    },
    (row, name) => {
      setAttribute(row.node, 'href', link(name));
      setText(row.number, snapshot[name]?.length == null ? '' : count(snapshot[name].length));
    },
  );
}

/** A snapshot with every list that this page reads; lists that the dash omitted are empty. */
function complete(snapshot) {
  const whole = { ...snapshot, topology: { nodes: snapshot.topology?.nodes ?? [], edges: snapshot.topology?.edges ?? [] } };
  for (const field of ['problems', ...FIELDS]) whole[field] = snapshot[field] ?? [];
  whole.endpoints = whole.endpoints.map((endpoint) => ({ ...endpoint, plugins: endpoint.plugins ?? [] }));
  return whole;
}

/** Newer data does not come. */
function old() {
  if (state.isOld || state.answeredAt == null) return;
  state.isOld = true;
  wrong.old(state.answeredAt / 1000);
  drawClusters();
}

function draw(answer) {
  const snapshot = complete(answer);
  const fresh = state.shown !== snapshot.cluster;
  state.shown = snapshot.cluster;
  setHidden(view, false);
  setText(at('title'), `Cluster ${snapshot.cluster}`);
  wrong.update(snapshot, fresh);
  drawSummary(snapshot);
  drawJump(snapshot);
  for (const [name, section] of Object.entries(SECTIONS)) section.update(snapshot[name], snapshot);
  const errors = snapshot.problems.filter((problem) => problem.severity === 'error').length;
  document.title = `${errors ? `(${errors}) ` : ''}${snapshot.cluster} · Penstock`;
  if (state.focus) {
    const focus = state.focus;
    state.focus = null;
    reveal(focus);
  }
}

// --- the clock ---------------------------------------------------------------------------------------------------------------

function say(text, kind = 'note') {
  setHidden(notice, !text);
  setText(notice, text ?? '');
  setAttribute(notice, 'data-kind', kind);
}

function drawFreshness() {
  const age = state.answeredAt == null ? null : (Date.now() - state.answeredAt) / 1000;
  const late = age != null && !state.paused && age > 5 + 3 * (state.me?.intervalSeconds ?? 1);
  if (late || state.paused) old();
  setText(at('freshness'), state.answeredAt == null ? '' : state.paused ? `Paused at ${clock(state.answeredAt / 1000)}` : late ? `${span(age)} old` : 'Live');
  setAttribute(at('freshness'), 'data-state', state.paused ? 'paused' : late ? 'late' : 'live');
}

function askForToken(wasShown) {
  setHidden(view, true);
  setHidden(pause, true);
  setHidden(signOut, true);
  setHidden(at('clusters'), true);
  say(null);
  const first = form.hidden;
  setHidden(form, false);
  setText(at('token-problem'), wasShown ? 'The dash does not know this token. Ask for the one of your workspace, or try again.' : '');
  token.forget();
  if (first || wasShown) at('token').focus();
}

/** The cluster in the URL may not be seen: shows a message, and the clusters that may. */
function forbidden(cluster) {
  setHidden(view, true);
  state.shown = null;
  const may = state.clusters.map((each) => each.name);
  const who = state.me?.workspace ? `Your workspace, ${state.me.workspace},` : 'You';
  say(`${who} may not see the cluster ${cluster}. ${may.length ? `It may see: ${may.join(', ')}.` : 'It may see none.'} Who may see what is in the dash's configuration.`, 'error');
}

async function ask() {
  const turn = (state.turn += 1);
  const shown = token.get();
  try {
    state.me ??= await api.me();
    const clusters = await api.clusters();
    if (turn !== state.turn) return;
    state.clusters = clusters;
    state.isOld = false;
    setHidden(form, true);
    setHidden(at('clusters'), false);
    setHidden(pause, false);
    setHidden(signOut, token.get() == null);
    setHidden(at('workspace'), !state.me.workspace);
    setText(at('workspace'), state.me.workspace ?? '');
    setText(at('version'), `penstock dash ${state.me.version ?? ''}`);
    const worst = [...clusters].sort((a, b) => (b.problems?.error ?? 0) - (a.problems?.error ?? 0))[0];
    state.cluster = placed()?.cluster || (clusters.some((each) => each.name === state.cluster) ? state.cluster : worst?.name);
    drawClusters();
    if (state.cluster == null) {
      setHidden(view, true);
      say('No clusters to show. Start the dash with --envoy or --prometheus, or name clusters in its --config.');
      return;
    }
    const snapshot = await api.cluster(state.cluster);
    if (turn !== state.turn) return;
    state.answeredAt = Date.now();
    say(null);
    draw(snapshot);
  } catch (error) {
    if (turn !== state.turn) return;
    if (!(error instanceof Refused)) throw error;
    if (error.status === 401) {
      state.me = null;
      askForToken(shown != null);
    } else if (error.status === 403) {
      forbidden(state.cluster);
    } else if (error.status === 404) {
      setHidden(view, true);
      say(`There is no cluster ${state.cluster}. Choose one above.`, 'error');
    } else {
      old();
      say(
        error.status === 0
          ? `The dash does not answer${state.answeredAt ? `; what you see is from ${clock(state.answeredAt / 1000)}` : ''}. Trying again.`
          : `The dash answered ${error.status}. Trying again.`,
        'error',
      );
    }
  }
}

themes(at('theme'));

let timer;
async function live() {
  clearTimeout(timer);
  if (!state.paused && !document.hidden && form.hidden) await ask();
  clearTimeout(timer);
  timer = setTimeout(live, Math.max(0.25, state.me?.intervalSeconds ?? 1) * 1000);
}

pause.addEventListener('click', () => {
  state.paused = !state.paused;
  // Responses that are still to come are ignored.
  state.turn += 1;
  pause.setAttribute('aria-pressed', String(state.paused));
  setText(pause, state.paused ? 'Resume' : 'Pause');
  for (const live of [feed, past]) live.pause(state.paused);
  drawFreshness();
  if (!state.paused) live();
});

form.addEventListener('submit', (event) => {
  event.preventDefault();
  token.set(at('token').value.trim());
  at('token').value = '';
  ask();
});

signOut.addEventListener('click', () => {
  // A response that is still to come was for the previous user.
  state.turn += 1;
  token.forget();
  state.me = null;
  state.shown = null;
  for (const live of [feed, past]) live.forget();
  askForToken(false);
});

window.addEventListener('hashchange', () => {
  const to = placed();
  if (!to) return;
  const same = to.cluster === state.shown;
  state.cluster = to.cluster;
  drawClusters();
  if (to.section && same) {
    reveal(to);
    return;
  }
  state.focus = to.section ? to : null;
  ask();
});

document.addEventListener('visibilitychange', () => !document.hidden && live());

// Opens the place in the URL as if it had been clicked.
const first = placed();
if (first?.section) state.focus = first;
setInterval(drawFreshness, 500);
live();
