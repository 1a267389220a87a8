// The page's requests to the dash, and its token. The token is kept in sessionStorage: in this tab, until it is closed.

const KEY = 'penstock-token';
const PATIENCE = 10_000;

/** A response other than 200. `status` is 0 when there was no response. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export const token = {
  get: () => sessionStorage.getItem(KEY),
  set: (value) => sessionStorage.setItem(KEY, value),
  forget: () => sessionStorage.removeItem(KEY),
};

async function ask(path, body) {
  const shown = token.get();
  let answer;
  let why = '';
  try {
    answer = await fetch(`api/v1/${path}`, {
      method: body === undefined ? 'GET' : 'POST',
      body: body === undefined ? undefined : JSON.stringify(body),
      headers: { ...(shown && { authorization: `Bearer ${shown}` }), ...(body !== undefined && { 'content-type': 'application/json' }) },
      cache: 'no-store',
      credentials: 'omit',
      redirect: 'error',
      signal: AbortSignal.timeout(PATIENCE),
    });
    const said = await answer.json();
    if (answer.ok) return said;
    why = said.error;
  } catch {
    if (!answer || answer.ok) throw new Refused(0, 'no answer');
  }
  throw new Refused(answer.status, why || answer.statusText);
}

const of = (cluster, ...rest) => ['clusters', cluster, ...rest].map(encodeURIComponent).join('/');

export const api = {
  me: () => ask('me'),
  clusters: async () => (await ask('clusters')).clusters,
  cluster: (name) => ask(of(name)),
  decisions: (cluster, filter) => ask(`${of(cluster, 'decisions')}?${new URLSearchParams(Object.entries(filter).filter(([, wish]) => wish !== '' && wish != null))}`),
  rule: (cluster, section, rule) => ask(of(cluster, 'rules', section, rule)),
  history: (cluster, seconds) => ask(`${of(cluster, 'history')}?seconds=${seconds}`),
  explain: (cluster, question) => ask(of(cluster, 'explain'), question),
};
