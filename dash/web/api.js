// What this page asks of the dash, and the token that it shows. The token lives in sessionStorage: this tab, until it closes.

const KEY = 'penstock-token';
const PATIENCE = 10_000;

/** An answer other than 200. `status` is 0 when there was none. */
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

async function get(path) {
  const shown = token.get();
  let answer;
  try {
    answer = await fetch(`api/v1/${path}`, {
      headers: shown ? { authorization: `Bearer ${shown}` } : {},
      cache: 'no-store',
      credentials: 'omit',
      redirect: 'error',
      signal: AbortSignal.timeout(PATIENCE),
    });
    if (answer.ok) return await answer.json();
  } catch {
    throw new Refused(0, 'no answer');
  }
  throw new Refused(answer.status, answer.statusText);
}

export const api = {
  me: () => get('me'),
  clusters: async () => (await get('clusters')).clusters,
  cluster: (name) => get(`clusters/${encodeURIComponent(name)}`),
};
