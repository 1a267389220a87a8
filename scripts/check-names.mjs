// Fails when two types of the workspace have one name: who reads a name must know what is meant without its path.
//
//   node scripts/check-names.mjs filters cli dash ...
//
// Counts structs, enums, traits and unions outside of tests. Type aliases and associated types are left out.
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";

// One a subcommand, always read as `check::Args`.
const ALLOWED = new Set(["Args"]);

/** The sources below a folder, without tests. */
function* sources(folder) {
    for (const entry of readdirSync(folder, { withFileTypes: true })) {
        const path = join(folder, entry.name);
        if (/^(target|tests?\.rs|tests|benches|fake|peers|node_modules)$/.test(entry.name)) continue;
        if (entry.isDirectory()) yield* sources(path);
        else if (entry.name.endsWith(".rs")) yield path;
    }
}

const places = new Map();
for (const file of process.argv.slice(2).flatMap((folder) => [...sources(folder)])) {
    // Unit tests stand at the end of a file.
    const [code] = readFileSync(file, "utf8").split(/^#\[cfg\(test\)\]\nmod \w+ \{/m);
    code.split("\n").forEach((line, i) => {
        const name = /^(?:pub(?:\([^)]*\))? )?(?:unsafe )?(?:struct|enum|trait|union) (\w+)/.exec(line)?.[1];
        if (name && !ALLOWED.has(name)) places.set(name, [...(places.get(name) ?? []), `${file}:${i + 1}`]);
    });
}

const twice = [...places].filter(([, where]) => where.length > 1);
for (const [name, where] of twice) console.error(`two types are called ${name}: ${where.join(", ")}`);
if (twice.length) process.exit(1);
console.log(`${places.size} types, each with a name of its own`);
