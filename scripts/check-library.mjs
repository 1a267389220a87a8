// Checks that the native body exports exactly the hooks that Envoy requires, and needs no newer glibc than documented.
// Usage: node check-library.mjs dist/libpenstock.so
import { readFileSync } from 'node:fs';

// The newest glibc that the library may need, as documented in docs/native.md: not newer than those of RHEL 9, Ubuntu 22.04,
// Debian 12 and Envoy's own images. A newer build machine must not raise it unnoticed.
const newestGlibc = [2, 34];

// Envoy 1.40 refuses a module that lacks one of these.
const http = `config_new config_destroy new destroy request_headers request_body request_trailers response_headers response_body
  response_trailers stream_complete http_callout_done http_stream_headers http_stream_data http_stream_trailers
  http_stream_complete http_stream_reset config_http_callout_done config_http_stream_headers config_http_stream_data
  config_http_stream_trailers config_http_stream_complete config_http_stream_reset config_scheduled scheduled local_reply
  per_route_config_new per_route_config_destroy downstream_above_write_buffer_high_watermark
  downstream_below_write_buffer_low_watermark`;
const network = `config_new config_destroy new destroy new_connection read write event http_callout_done scheduled
  config_scheduled above_write_buffer_high_watermark below_write_buffer_low_watermark`;
const names = (kind, list) => list.trim().split(/\s+/).map((hook) => `envoy_dynamic_module_on_${kind}_filter_${hook}`);
const required = new Set([
  'envoy_dynamic_module_on_program_init',
  ...names('http', http),
  ...names('network', network),
]);

// The dynamic symbols of a 64-bit little-endian ELF file, and the versions of the libraries that it needs.
function read(file) {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  if (view.getUint32(0, false) !== 0x7f454c46) throw new Error('not an ELF file');
  const sections = [];
  const [table, size, count] = [Number(view.getBigUint64(40, true)), view.getUint16(58, true), view.getUint16(60, true)];
  for (let i = 0; i < count; i++) {
    const at = table + i * size;
    const [type, link] = [view.getUint32(at + 4, true), view.getUint32(at + 40, true)];
    const [offset, length] = [24, 32].map((field) => Number(view.getBigUint64(at + field, true)));
    sections.push({ type, link, offset, length });
  }
  const text = (section, at) => {
    const start = section.offset + at;
    return file.toString('latin1', start, file.indexOf(0, start));
  };
  const symbols = sections.find(({ type }) => type === 11);
  const exported = [];
  for (let at = symbols.offset; at < symbols.offset + symbols.length; at += 24) {
    const isDefined = view.getUint16(at + 6, true) !== 0;
    if (isDefined) exported.push(text(sections[symbols.link], view.getUint32(at, true)));
  }
  const strings = sections[symbols.link];
  const all = file.toString('latin1', strings.offset, strings.offset + strings.length);
  const versions = [...all.matchAll(/GLIBC_(\d+)\.(\d+)/g)].map(([, major, minor]) => [Number(major), Number(minor)]);
  return { exported, versions };
}

const path = process.argv[2];
const { exported, versions } = read(readFileSync(path));
const missing = [...required].filter((name) => !exported.includes(name));
const foreign = exported.filter((name) => name !== '' && !required.has(name));
for (const name of missing) console.error(`error: ${path} does not export ${name}`);
for (const name of foreign) console.error(`error: ${path} exports ${name}, which is no hook of Envoy's`);
const newest = versions.sort(([a, b], [c, d]) => a - c || b - d).at(-1) ?? [0, 0];
const isTooNew = newest[0] > newestGlibc[0] || (newest[0] === newestGlibc[0] && newest[1] > newestGlibc[1]);
if (isTooNew) console.error(`error: ${path} needs glibc ${newest.join('.')}; at most ${newestGlibc.join('.')} is promised`);
console.log(`libpenstock.so           needs glibc ${newest.join('.')} or later`);
process.exit(missing.length + foreign.length > 0 || isTooNew ? 1 : 0);
