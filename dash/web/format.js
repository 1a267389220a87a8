// Formats numbers, shares and times. All times are seconds since 1970.

export const NONE = '–';

function fixed(value, digits) {
  return value.toFixed(digits).replace(/\.0+$/, '');
}

/** A count or rate in at most four characters and a unit: `0.04`, `3.1`, `120`, `4.2k`. */
export function number(value) {
  if (value == null || Number.isNaN(value)) return NONE;
  const size = Math.abs(value);
  if (size === 0) return '0';
  if (size < 0.01) return '<0.01';
  if (size < 0.1) return fixed(value, 2);
  if (size < 10) return fixed(value, 1);
  if (size < 1000) return String(Math.round(value));
  if (size < 10_000) return `${fixed(value / 1000, 1)}k`;
  if (size < 1_000_000) return `${Math.round(value / 1000)}k`;
  return `${fixed(value / 1_000_000, 1)}M`;
}

/** A rate with its unit. */
export function rate(value) {
  return value == null ? NONE : `${number(value)}/s`;
}

/** An integer with grouped digits. */
export function count(value) {
  return value == null ? NONE : Math.round(value).toLocaleString('en');
}

/** A share between 0 and 1 in percent. */
export function percent(share) {
  if (share == null || Number.isNaN(share)) return NONE;
  const value = share * 100;
  if (value > 0 && value < 0.1) return '<0.1 %';
  return `${value < 10 ? fixed(value, 1) : Math.round(value)} %`;
}

/** A span of time by its largest unit: `12 s`, `3 min`, `5 h`, `9 d`. */
export function span(seconds) {
  if (seconds == null) return NONE;
  const value = Math.max(0, seconds);
  if (value < 60) return `${Math.floor(value)} s`;
  if (value < 3600) return `${Math.floor(value / 60)} min`;
  if (value < 48 * 3600) return `${Math.floor(value / 3600)} h`;
  return `${Math.floor(value / 86_400)} d`;
}

/** How long ago, or ahead, `at` is. */
export function ago(at, now) {
  if (at == null) return NONE;
  if (at > now + 1) return `in ${span(at - now)}`;
  return now - at < 1 ? 'now' : `${span(now - at)} ago`;
}

/** A time of day. */
export function clock(at) {
  return new Date(at * 1000).toLocaleTimeString('en-GB');
}

/** A day, or day and minute. */
export function day(at) {
  return new Date(at * 1000).toISOString().slice(0, 10);
}

/** `1 proxy`, `2 proxies`. */
export function plural(value, one, many = `${one}s`) {
  return `${count(value)} ${value === 1 ? one : many}`;
}
