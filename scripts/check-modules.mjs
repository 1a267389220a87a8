// Checks that each module exports what Envoy looks for: Envoy silently never calls a module without these exports.
// Usage: node check-modules.mjs dist/suite dist/canary …
import { readFileSync } from 'node:fs';

// The ABI's version marker, the memory that Envoy writes to, and the callbacks that every filter of ours has.
const required = [
  'memory',
  'proxy_abi_version_0_2_1',
  'proxy_on_memory_allocate',
  'proxy_on_context_create',
  'proxy_on_configure',
  'proxy_on_request_headers',
];
// The functions that Envoy provides. It refuses a module that imports others, but only when it is loaded.
const hostModules = ['env', 'wasi_snapshot_preview1'];

let failed = false;
for (const path of process.argv.slice(2)) {
  const module = new WebAssembly.Module(readFileSync(`${path}.wasm`));
  const exported = new Set(WebAssembly.Module.exports(module).map(({ name }) => name));
  const missing = required.filter((name) => !exported.has(name));
  const foreign = WebAssembly.Module.imports(module).filter((entry) => !hostModules.includes(entry.module));
  for (const name of missing) console.error(`error: ${path}.wasm does not export ${name}`);
  for (const entry of foreign) console.error(`error: ${path}.wasm imports ${entry.module}.${entry.name}, which Envoy does not have`);
  failed ||= missing.length + foreign.length > 0;
}
process.exit(failed ? 1 : 0);
