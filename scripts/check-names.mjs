// Fails when two types of the workspace have the same name: a name must be clear without its path.
//
//   node scripts/check-names.mjs filters cli dash ...
//
// Compares structs, enums, traits and unions outside of tests. Type aliases and associated types are ignored.
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";

// There is one for each subcommand, always used as `check::Args`.
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
    // Unit tests are at the end of a file.
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
