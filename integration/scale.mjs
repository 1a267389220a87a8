// Loads a built module with a policy as Envoy would, on Node's V8, and measures: milliseconds to configure, the memory that
// the VM has then (it never gives any back), the values that it has written into the shared data, nanoseconds for a decision,
// and what it takes to load the policy a second time, beside the first: what a reload costs.
//
//     node integration/scale.mjs MODULE.wasm POLICY.json [HOST [PEER]]
//
// The host functions answer as Envoy does; those that the decision does not need do nothing.
import { readFileSync } from "node:fs";

const [modulePath, policyPath, host = "h0.example.com", peer = ""] = process.argv.slice(2);
const policy = readFileSync(policyPath);
const text = new TextEncoder();
const OK = 0, NOT_FOUND = 1, CAS_MISMATCH = 8;

const headers = [
  [":method", "GET"], [":scheme", "https"], [":authority", host], [":path", "/v1/things?page=2"],
  ["user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"], ["accept", "*/*"], ["x-request-id", "1"],
].map((pair) => pair.map((part) => text.encode(part)));
const properties = new Map([
  ["connection\0uri_san_peer_certificate", text.encode(peer)], ["connection\0tls_version", text.encode("TLSv1.3")],
]);

const shared = new Map();
let exports, answered = 0, said = "", writes = 0;
const bytes = () => new Uint8Array(exports.memory.buffer);
const view = () => new DataView(exports.memory.buffer);
const read = (at, length) => Buffer.from(bytes().subarray(at, at + length)).toString("latin1");

/** Hands bytes to the module, in memory of its own. */
function give(value, addressAt, lengthAt) {
  const at = value.length ? exports.proxy_on_memory_allocate(value.length) : 0;
  bytes().set(value, at);
  view().setUint32(addressAt, at, true);
  view().setUint32(lengthAt, value.length, true);
  return OK;
}

const size = 4 + headers.reduce((sum, [name, value]) => sum + 8 + name.length + value.length + 2, 0);
const map = new Uint8Array(size);
{
  const out = new DataView(map.buffer);
  out.setUint32(0, headers.length, true);
  let at = 4;
  for (const [name, value] of headers) {
    out.setUint32(at, name.length, true);
    out.setUint32(at + 4, value.length, true);
    at += 8;
  }
  for (const part of headers.flat()) {
    map.set(part, at);
    at += part.length + 1;
  }
}

const env = {
  proxy_log: (_level, at, length) => { said += read(at, length) + "\n"; return OK; },
  proxy_get_log_level: (at) => { view().setUint32(at, 3, true); return OK; },
  proxy_get_buffer_bytes: (_kind, _start, _size, address, length) => give(policy, address, length),
  proxy_get_header_map_pairs: (_map, address, length) => give(map, address, length),
  proxy_get_property: (at, length, address, lengthAt) => {
    const value = properties.get(read(at, length));
    return value?.length ? give(value, address, lengthAt) : NOT_FOUND;
  },
  proxy_get_shared_data: (at, length, address, lengthAt, tokenAt) => {
    const found = shared.get(read(at, length));
    if (!found) return NOT_FOUND;
    view().setUint32(tokenAt, found.token, true);
    return give(found.value, address, lengthAt);
  },
  proxy_set_shared_data: (at, length, valueAt, valueLength, token) => {
    const key = read(at, length);
    if (token && shared.has(key) && shared.get(key).token !== token) return CAS_MISMATCH;
    writes += 1;
    shared.set(key, { value: bytes().slice(valueAt, valueAt + valueLength), token: writes });
    return OK;
  },
  proxy_get_current_time_nanoseconds: (at) => {
    view().setBigUint64(at, BigInt(Date.now()) * 1_000_000n, true);
    return OK;
  },
  proxy_send_local_response: () => { answered += 1; return OK; },
};
const nothing = (module) => new Proxy(module, { get: (known, name) => known[name] ?? (() => OK) });
const { instance } = await WebAssembly.instantiate(readFileSync(modulePath), {
  env: nothing(env),
  wasi_snapshot_preview1: nothing({}),
});
exports = instance.exports;
exports._initialize();
exports.proxy_on_vm_start(1, 0);
exports.proxy_on_context_create(1, 0);
const empty = exports.memory.buffer.byteLength;
const started = performance.now();
const taken = exports.proxy_on_configure(1, policy.length);
const configureMs = performance.now() - started;
const MIB = 1 << 20;
const memoryMiB = exports.memory.buffer.byteLength / MIB;
const sharedValues = shared.size;
const sharedMiB = [...shared].reduce((sum, [key, { value }]) => sum + key.length + value.length, 0) / MIB;

function decide(times) {
  const started = performance.now();
  for (let i = 0; i < times; i++) {
    exports.proxy_on_context_create(2, 1);
    exports.proxy_on_request_headers(2, headers.length, 1);
    exports.proxy_on_delete(2);
  }
  return ((performance.now() - started) * 1e6) / times;
}
let decideNs = null;
if (taken) {
  decide(20_000);
  // The least of several: what it costs when nothing else runs.
  decideNs = Math.min(...Array.from({ length: 10 }, () => decide(10_000)));
}
exports.proxy_on_context_create(3, 0);
const again = performance.now();
exports.proxy_on_configure(3, policy.length);
const reloadMs = performance.now() - again;
const reloadMiB = exports.memory.buffer.byteLength / MIB;
console.log(JSON.stringify({
  taken: taken === 1, configureMs, emptyMiB: empty / MIB, memoryMiB, sharedValues, sharedMiB, decideNs, reloadMs, reloadMiB, answered, said: said.slice(0, 500),
}));
