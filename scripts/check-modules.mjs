// A module that Envoy loads but never calls does nothing, without a word. So: does each export what the host looks for?
// Usage: node check-modules.mjs dist/suite dist/canary …
import { readFileSync } from 'node:fs';

// The ABI's version marker, the memory that the host writes into, and what every filter of ours answers.
const required = [
  'memory',
  'proxy_abi_version_0_2_1',
  'proxy_on_memory_allocate',
  'proxy_on_context_create',
  'proxy_on_configure',
  'proxy_on_request_headers',
];
// What Envoy offers. It refuses a module that asks for more, but only once it is loaded.
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
