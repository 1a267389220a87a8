// The panel beside a decision: its rule with the last refusals, or a form that explains a request.

import { api, Refused } from './api.js';
import { el, setHidden, setText } from './dom.js';
import { clock, NONE, plural } from './format.js';

const FIELDS = [
  ['method', 'Method'],
  ['scheme', 'Scheme'],
  ['host', 'Host'],
  ['path', 'Path, with its query'],
  ['sourceAddress', 'Client address'],
  ['peer', 'Caller (identity)'],
  ['sni', 'Server name (TLS)'],
];

/** A panel over the page. `cluster()` returns the cluster that is shown. */
export function inspector(dialog, cluster) {
  const title = el('h2', { id: 'inspect-title', tabindex: '-1' });
  const close = el('button', { type: 'button' }, 'Close');
  const content = el('div', { class: 'content' });
  dialog.append(el('div', { class: 'head' }, title, close), content);
  close.addEventListener('click', () => dialog.close());
  let opener = null;
  // The browser has given the focus back already, where it could; by now the person may have moved it.
  dialog.addEventListener('close', () => document.activeElement === document.body && opener?.isConnected && opener.focus());
  let turn = 0;

  function open(text, ...children) {
    if (!dialog.open) opener = document.activeElement;
    setText(title, text);
    content.replaceChildren(...children);
    if (!dialog.open) dialog.showModal();
    title.focus();
    return (turn += 1);
  }

  const failed = (error) => {
    if (!(error instanceof Refused)) throw error;
    return el('p', { class: 'wrong', role: 'alert' }, error.status ? `The dash says: ${error.message}` : 'The dash does not answer.');
  };

  function versionOf(version) {
    const facts = [
      ['Owner', version.owner],
      ['Reason', version.purpose],
      ['Ends', version.expires],
      ['Plugin', version.plugin],
      ['Runs in', version.proxies.length > 4 ? `${version.proxies.slice(0, 3).join(', ')} and ${version.proxies.length - 3} more` : version.proxies.join(', ')],
    ];
    return el(
      'article',
      {},
      el('dl', { class: 'facts' }, ...facts.filter(([, value]) => value).map(([name, value]) => el('div', {}, el('dt', {}, name), el('dd', {}, value)))),
      // Long lines can be scrolled, by keyboard, too.
      el('pre', { tabindex: '0', 'aria-label': 'The rule as YAML' }, ...lines(version.yaml)),
    );
  }

  /** Shows a rule of a section, and the last requests that it refused. */
  async function rule(section, name) {
    const mine = open(`${section}/${name}`, el('p', { class: 'empty' }, 'Reading the rule…'));
    let parts;
    try {
      const found = await api.rule(cluster(), section, name);
      const refusals = found.refusals.map((one) => {
        const ask = el('button', { type: 'button', class: 'small' }, 'Explain');
        ask.addEventListener('click', () => explain(one));
        const who = [one.caller, one.address].filter(Boolean).join(', ') || NONE;
        return el('li', {}, el('span', {}, `${clock(one.at)} ${one.method} ${one.host}${one.path}, ${one.reason ?? one.status}, by ${who} `), ask);
      });
      parts = [
        ...(found.versions.length ? found.versions.map(versionOf) : [el('p', { class: 'empty' }, 'No proxy whose policy the dash can read runs this rule now.')]),
        el('h3', {}, 'Last refusals by this rule'),
        refusals.length ? el('ol', { class: 'last' }, ...refusals) : el('p', { class: 'empty' }, 'None in the decisions that are kept.'),
      ];
      if (found.versions.length > 1) parts.unshift(el('p', { class: 'notice' }, `The proxies run ${plural(found.versions.length, 'different version')} of this rule.`));
    } catch (error) {
      parts = [failed(error)];
    }
    if (mine === turn) content.replaceChildren(...parts);
  }

  /** Shows a form with a decision's request, and explains it at once. */
  function explain(decision) {
    const values = { ...decision, sourceAddress: decision.address, peer: decision.caller };
    const inputs = FIELDS.map(([name, label]) => {
      const input = el('input', { id: `ask-${name}`, name, value: values[name] ?? '', spellcheck: 'false', autocomplete: 'off' });
      return [name, input, el('div', {}, el('label', { for: `ask-${name}` }, label), input)];
    });
    const headers = el('textarea', { id: 'ask-headers', rows: '3', spellcheck: 'false' }, (decision.headers ?? []).map((pair) => pair.join(': ')).join('\n'));
    const form = el(
      'form',
      { class: 'ask' },
      ...inputs.map(([, , node]) => node),
      el('div', { class: 'wide' }, el('label', { for: 'ask-headers' }, 'Headers, one a line: name: value'), headers),
      el('div', { class: 'wide' }, el('button', { type: 'submit', class: 'primary' }, 'Explain this request')),
    );
    const answer = el('div', { class: 'answer', role: 'status' });
    open('Explain this request', form, answer);

    async function ask() {
      const question = { headers: [] };
      for (const [name, input] of inputs) if (input.value.trim()) question[name] = input.value.trim();
      for (const line of headers.value.split('\n')) {
        const at = line.indexOf(':', 1);
        if (at > 0) question.headers.push([line.slice(0, at).trim().toLowerCase(), line.slice(at + 1).trim()]);
      }
      Object.assign(question, { method: question.method ?? '', host: question.host ?? '', path: question.path ?? '' });
      if (decision.at) question.at = decision.at;
      if (decision.proxyKnown !== false && decision.proxy) question.proxy = decision.proxy;
      if (decision.section && decision.section !== 'host') question.section = decision.section;
      const mine = (turn += 1);
      let parts;
      try {
        let found = await api.explain(cluster(), question);
        if (found.explanations.length === 0 && question.proxy) {
          // The log has another name for the proxy, or none, so the policies of the whole cluster are used.
          delete question.proxy;
          found = await api.explain(cluster(), question);
        }
        parts = answered(found);
      } catch (error) {
        parts = [failed(error)];
      }
      if (mine === turn) answer.replaceChildren(...parts);
    }

    form.addEventListener('submit', (event) => {
      event.preventDefault();
      ask();
    });
    ask();
  }

  function answered(found) {
    const copy = el('button', { type: 'button' }, 'Copy as penstock explain');
    const told = el('span', { role: 'status' });
    const command = el('pre', { class: 'command', tabindex: '0', 'aria-label': 'The command' }, found.command);
    copy.addEventListener('click', async () => {
      try {
        await navigator.clipboard.writeText(found.command);
        setText(told, 'Copied.');
      } catch {
        // Without permission, the text can be copied by hand.
        getSelection().selectAllChildren(command);
        setText(told, 'Selected: copy it with your keyboard.');
      }
    });
    const explanations = found.explanations.map((one) =>
      el(
        'article',
        { class: one.refused ? 'refused' : '' },
        el('h3', {}, `${one.plugin || 'Policy'} in ${one.proxies.length > 3 ? plural(one.proxies.length, 'proxy', 'proxies') : one.proxies.join(', ')}`),
        el('pre', { tabindex: '0', 'aria-label': `The explanation by ${one.plugin || 'the policy'}` }, ...lines(one.text ?? one.error ?? '')),
      ),
    );
    const none = el('p', { class: 'empty' }, 'The dash has read no policy that decides this: give it the proxy with --envoy.');
    return [
      ...(explanations.length ? explanations : [none]),
      found.more ? el('p', { class: 'hint' }, `${plural(found.more, 'further policy', 'further policies')} left out.`) : el('span', {}),
      ...found.notes.map((note) => el('p', { class: 'hint' }, note)),
      el('h3', {}, 'The same in a shell'),
      command,
      el('p', {}, copy, ' ', told),
    ];
  }

  setHidden(dialog, false);
  return { rule, explain };
}

/** Text with its line breaks; all other invisible characters are escaped. */
function lines(text) {
  return text.trimEnd().split('\n').map((line) => el('span', { class: 'line' }, line));
}
