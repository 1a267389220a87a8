// The proxies: whether they respond, and which policy each of them runs.

import { badge } from './badge.js';
import { el, keyed, setAttribute, setHidden, setText } from './dom.js';
import { ago, NONE, plural, span } from './format.js';
import { table, words } from './table.js';

const MANY = 6;

export function drift(section) {
  const empty = el('p', { class: 'empty', hidden: true }, 'No proxy has reported which policy it runs.');
  const holder = el('div', { class: 'drift-list' });
  section.append(empty, holder);

  function create() {
    const name = el('h3', {});
    const state = badge();
    const hashes = el('ul', { class: 'hashes' });
    return { node: el('article', { class: 'drift' }, el('div', { class: 'head' }, name, state.node), hashes), name, state, hashes };
  }

  function update(row, plugin) {
    const proxies = plugin.hashes.reduce((sum, hash) => sum + hash.endpoints.length, 0);
    setText(row.name, plugin.plugin);
    if (plugin.hashes.length > 1) row.state.set('warning', `${plural(plugin.hashes.length, 'version')} in ${plural(proxies, 'proxy', 'proxies')}`);
    else row.state.set('ok', proxies === 1 ? 'one proxy' : `all ${plural(proxies, 'proxy', 'proxies')} the same`);
    keyed(
      row.hashes,
      plugin.hashes,
      (hash) => hash.hash,
      () => {
        const code = el('code', {});
        const who = el('span', {});
        return { node: el('li', {}, code, who), code, who };
      },
      (line, hash) => {
        setText(line.code, hash.hash);
        const named = hash.endpoints.slice(0, MANY).join(', ');
        const rest = hash.endpoints.length - MANY;
        setText(line.who, rest > 0 ? `${named} and ${rest} more` : named);
        setAttribute(line.node, 'data-odd', plugin.hashes.length > 1 && hash !== plugin.hashes[0] ? '' : null);
      },
    );
  }

  return {
    update(plugins) {
      setHidden(empty, plugins.length > 0);
      keyed(holder, plugins, (plugin) => plugin.plugin, create, update);
    },
    find: () => section,
  };
}

function stateOf(endpoint) {
  if (endpoint.error) return ['error', `no answer: ${endpoint.error}`];
  if (endpoint.trouble) return ['error', endpoint.trouble];
  if (!endpoint.alive) return ['note', 'no answer yet'];
  return endpoint.unknown ? ['note', 'not all is known'] : ['ok', 'answers'];
}

export function endpoints(section) {
  return table(
    section,
    [
      {
        label: 'Proxy',
        make() {
          const name = el('span', { class: 'name' });
          const state = badge();
          return {
            node: el('span', { class: 'heading' }, name, state.node),
            set(endpoint) {
              setText(name, endpoint.name);
              setAttribute(name, 'title', endpoint.url);
              state.set(...stateOf(endpoint));
            },
          };
        },
      },
      words('Last seen', (endpoint, snapshot) => (endpoint.lastSeen == null ? 'never' : ago(endpoint.lastSeen, snapshot.at))),
      words('Envoy', (endpoint) => endpoint.envoyVersion ?? NONE),
      words('Up for', (endpoint) => span(endpoint.uptimeSeconds)),
      words('Node', (endpoint) => [endpoint.node, endpoint.namespace].filter(Boolean).join(' in ') || NONE),
      words(
        'Policies',
        (endpoint, snapshot) =>
          endpoint.plugins
            .map((plugin) => `${plugin.name} ${plugin.hash ?? ''}${plugin.generation == null ? '' : ` (change ${plugin.generation}${plugin.loaded == null ? '' : `, ${ago(plugin.loaded, snapshot.at)}`})`}`)
            .join('; ') || NONE,
        'long',
      ),
    ],
    {
      caption: 'Watched proxies: whether they answer, version, uptime and policies',
      none: 'No proxies are watched in this cluster.',
      what: 'proxies',
      isKnown: true,
      key: (endpoint) => endpoint.name,
      weight: (endpoint) => (stateOf(endpoint)[0] === 'ok' ? 0 : 1),
      state: (endpoint) => (stateOf(endpoint)[0] === 'error' ? 'error' : null),
    },
  );
}
