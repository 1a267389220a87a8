// The tables of rate limits, egress rules, routes and refusals.

import { badge, breaker } from './badge.js';
import { el, setHidden, setStyle, setText } from './dom.js';
import { ago, count, day, NONE, number, percent, rate } from './format.js';
import { rate as sparkline } from './spark.js';
import { table, words } from './table.js';

const name = (rule) => rule.name;
const NAMES = { _default: 'no rule', _others: 'further rules' };
const shownName = (rule) => NAMES[rule.name] ?? rule.name;

/** Text that opens a rule when it is clicked; only the text where there is no rule. */
function opener(has, text, open) {
  if (!has) return el('span', { class: 'name' }, text);
  const node = el('button', { type: 'button', class: 'link name' }, text);
  node.addEventListener('click', open);
  return node;
}

/** A rule's name, which shows the rule, with its most important details. */
function heading(label, badges, show) {
  return {
    label,
    make(rule) {
      const text = opener(!NAMES[rule.name], shownName(rule), () => show(rule.name));
      const marks = badges.map(() => badge());
      return {
        node: el('span', { class: 'heading' }, text, ...marks.map((mark) => mark.node)),
        set(rule) {
          marks.forEach((mark, index) => mark.set(...(badges[index](rule) ?? ['note', ''])));
        },
      };
    },
  };
}

/** A column with the summed rate of one or more outcomes, and its last minute. */
function outcomes(label, kind, ...of) {
  return {
    label,
    className: 'number',
    make() {
      const line = sparkline(kind);
      return { node: line.node, set: (rule) => line.set(added(rule, of)) };
    },
  };
}

function added(rule, of) {
  const present = of.map((outcome) => rule.outcomes?.[outcome]).filter(Boolean);
  if (present.length < 2) return present[0] ?? { perSecond: 0, history: [] };
  const history = present[0].history.map((_, index) => present.reduce((sum, outcome) => sum + (outcome.history[index] ?? 0), 0));
  return { perSecond: present.reduce((sum, outcome) => sum + (outcome.perSecond ?? 0), 0), history };
}

const perSecond = (rule, ...of) => added(rule, of).perSecond ?? 0;
const busiest = (rule) => Object.values(rule.outcomes ?? {}).reduce((sum, outcome) => sum + (outcome.perSecond ?? 0), 0);

/** Outcomes that indicate a problem. */
const TROUBLES = { overfull: 'shared buckets', error: 'service failed', timeout: 'service late', missingKey: 'without key', badCost: 'bad cost' };

function troubles() {
  return (rule) => {
    const found = Object.keys(TROUBLES).filter((outcome) => rule.outcomes?.[outcome]?.total > 0);
    return found.length ? ['warning', found.map((outcome) => `${TROUBLES[outcome]}: ${count(rule.outcomes[outcome].total)}`).join(', ')] : null;
  };
}

function fill() {
  return {
    label: 'Busy keys',
    make() {
      const inside = el('span', { class: 'fill' });
      const meter = el('span', { class: 'bar meter', 'aria-hidden': 'true' }, inside);
      const text = el('span', {});
      return {
        node: el('span', { class: 'fill-cell' }, meter, text),
        set(limit) {
          const share = limit.capacity ? (limit.used ?? 0) / limit.capacity : null;
          setHidden(meter, share == null);
          if (share != null) {
            setStyle(inside, 'width', `${Math.min(100, share * 100).toFixed(1)}%`);
            meter.dataset.level = share >= 0.9 ? 'full' : share >= 0.7 ? 'high' : 'fine';
          }
          setText(text, share == null ? NONE : `${number(limit.used ?? 0)} of ${number(limit.capacity)} (${percent(share)})`);
        },
      };
    },
  };
}

export function rateLimits(section, show) {
  return table(
    section,
    [
      heading('Limit', [(limit) => (limit.mode === 'Shadow' ? ['note', 'Shadow'] : null), troubles()], show),
      words('Quota', (limit) => [limit.limit ?? NONE, limit.scope === 'global' ? 'global' : ''].filter(Boolean).join(', '), 'short'),
      fill(),
      outcomes('Passed', '', 'passed'),
      outcomes('Refused', 'bad', 'limited', 'wouldLimit'),
    ],
    {
      caption: 'Rate limits: quota, busy keys, and requests that passed and were refused',
      none: 'No policy in this cluster has a rate limit.',
      what: 'limits',
      key: name,
      weight: (limit) => busiest(limit) + 1000 * perSecond(limit, 'limited'),
      state: (limit) => (perSecond(limit, 'limited') > 0 ? 'warning' : null),
    },
  );
}

function expiry(rule) {
  if (rule.expires == null) return null;
  const days = rule.expiresInDays;
  if (days != null && days < 0) return ['error', `expired ${day(rule.expires)}`];
  if (days != null && days < 14) return ['warning', days < 1 ? 'ends today' : `ends in ${Math.floor(days)} d`];
  return null;
}

export function egress(section, show) {
  const told = (rule) => (rule.expires == null ? 'no end' : `${day(rule.expires)}${rule.expiresInDays > 0 ? `, in ${number(rule.expiresInDays)} d` : ''}`);
  return table(
    section,
    [
      heading('Rule', [(rule) => (rule.mode === 'Audit' ? ['note', 'Audit'] : null), (rule) => (rule.action === 'Deny' ? ['note', 'deny list'] : null), expiry], show),
      words('Owner', (rule) => rule.owner ?? NONE),
      words('Hosts', (rule) => ellipsis(rule.hosts), 'long'),
      words('Reason', (rule) => rule.reason ?? NONE, 'long'),
      words('Ends', told, 'short'),
      outcomes('Allowed', '', 'allowed'),
      outcomes('Refused', 'bad', 'denied', 'audited'),
      words('Last refused', (rule, snapshot) => (rule.lastRefused == null ? NONE : ago(rule.lastRefused, snapshot.at)), 'number'),
    ],
    {
      caption: 'Egress rules: owner, reason, end, and requests that were allowed and refused',
      none: 'No policy in this cluster controls egress.',
      what: 'rules',
      key: name,
      text: (rule) => [rule.name, rule.owner, rule.reason, ...(rule.hosts ?? [])].filter(Boolean).join(' '),
      weight: (rule) => busiest(rule) + 1000 * perSecond(rule, 'denied'),
      state: (rule) => (perSecond(rule, 'denied') > 0 ? 'error' : null),
    },
  );
}

function ellipsis(hosts) {
  if (!hosts?.length) return NONE;
  return hosts.length > 4 ? `${hosts.slice(0, 3).join(', ')} and ${hosts.length - 3} more` : hosts.join(', ');
}

export function routes(section, show) {
  return table(
    section,
    [
      heading('Rule', [], show),
      outcomes('Requests', '', 'matched'),
      words('Total', (route) => count(route.outcomes?.matched?.total ?? 0), 'number'),
      {
        label: 'Breaker',
        make() {
          const mark = badge();
          const none = el('span', {}, NONE);
          return {
            node: el('span', {}, mark.node, none),
            set(route) {
              setHidden(none, route.breaker != null);
              breaker(mark, route.breaker);
            },
          };
        },
      },
    ],
    {
      caption: 'Routes: requests by rule, and breakers',
      none: 'No policy in this cluster routes.',
      what: 'routes',
      key: name,
      weight: (route) => perSecond(route, 'matched'),
      state: (route) => (route.breaker === 'open' ? 'error' : null),
    },
  );
}

const SECTIONS = { egress: 'Egress', rateLimits: 'Rate limit', routes: 'Route', canaries: 'Canary', host: 'Host' };

/** Refusals that a rule of a policy made; the others are by no rule, or by the module itself. */
const isByRule = (refusal) => ['egress', 'rateLimits'].includes(refusal.section) && !NAMES[refusal.rule];

export function refusals(section, show) {
  const holder = el('div', {});
  section.append(
    holder,
    el('p', { class: 'hint' }, 'From the counters of the modules, which never hold request data. Who was refused what is in Decisions, live, when an access log comes here.'),
  );
  return table(
    holder,
    [
      {
        label: 'By',
        make(refusal) {
          const text = `${SECTIONS[refusal.section] ?? refusal.section}: ${NAMES[refusal.rule] ?? refusal.rule}`;
          return { node: opener(isByRule(refusal), text, () => show(refusal.section, refusal.rule)), set() {} };
        },
      },
      words('Reason', (refusal) => refusal.reason ?? NONE),
      words('Owner', (refusal) => refusal.owner ?? NONE),
      words('Last', (refusal, snapshot) => ago(refusal.at, snapshot.at), 'number'),
      words('Now', (refusal) => rate(refusal.perSecond), 'number'),
      words('In all', (refusal) => count(refusal.count), 'number'),
    ],
    {
      caption: 'What was refused last, newest first',
      none: 'Nobody has been refused since the dash began to watch.',
      what: 'refusals',
      first: 12,
      key: (refusal) => `${refusal.section} ${refusal.rule} ${refusal.reason}`,
      text: (refusal) => `${refusal.section} ${refusal.rule} ${refusal.reason} ${refusal.owner ?? ''}`,
      weight: (refusal) => refusal.at,
    },
  );
}
