// Words with an icon: a state is never shown by its colour alone.

import { el, setAttribute, setHidden, setSign, setText, sign } from './dom.js';

/** A badge. `set(kind, text)`: kind is `ok`, `warning`, `error` or `note`; without text it is hidden. */
export function badge() {
  const mark = sign('note');
  const text = el('span', {});
  const node = el('span', { class: 'badge note', hidden: true }, mark, text);
  return {
    node,
    set(kind, words) {
      setHidden(node, !words);
      if (!words) return;
      setAttribute(node, 'class', `badge ${kind}`);
      setSign(mark, kind);
      setText(text, words);
    },
  };
}

const BREAKERS = {
  open: ['error', 'Open: gets nobody'],
  halfOpen: ['warning', 'Half-open: probing'],
  closed: ['ok', 'Closed'],
};

/** The badge of a breaker's state. */
export function breaker(into, state) {
  into.set(...(BREAKERS[state] ?? ['note', '']));
}
