// Fails when modules of one crate import each other in a circle, because none of them can then be read without the others.
//
//   node scripts/check-circles.mjs filters/policy filters/host ...
//
// Reads `use` declarations and paths that start with `crate::`, `super::` or `self::`. A name that a module re-exports
// (`pub use`) is searched for circles twice: as an import of the file that defines it, and as an import of that module.
// Tests are ignored.
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { dirname, join } from "node:path";

/** The source without comments, strings and tests. */
function code(file) {
    const source = readFileSync(file, "utf8")
        .replace(/\bb?r(#*)"[\s\S]*?"\1/g, '""')
        .replace(/b?'(\\.[^']*|[^\\'\n])'/g, "' '")
        .replace(/"(\\[\s\S]|[^"\\])*"|\/\/.*|\/\*[\s\S]*?\*\//g, (text) => (text[0] === '"' ? '""' : " "));
    return withoutTests(source);
}

function withoutTests(source) {
    for (;;) {
        const start = source.search(/#\[cfg\((test|all\(test|any\(test)/);
        if (start < 0) return source;
        let end = start, depth = 0;
        for (; end < source.length; end++) {
            if (source[end] === "{") depth++;
            else if (source[end] === "}" && --depth === 0) break;
            else if (source[end] === ";" && depth === 0) break;
        }
        source = source.slice(0, start) + source.slice(end + 1);
    }
}

/** Every path of a `use` tree, such as `a::{b, c::{d as e, self}}`, with its local name. */
function* paths(tree, prefix = []) {
    tree = tree.trim();
    const brace = tree.indexOf("{");
    if (brace < 0) {
        const [path, alias] = tree.split(/\s+as\s+/);
        const parts = [...prefix, ...path.split("::").map((part) => part.trim()).filter(Boolean)];
        if (parts.at(-1) === "self") parts.pop();
        yield { parts, name: alias?.trim() ?? parts.at(-1) };
        return;
    }
    const head = tree.slice(0, brace).split("::").map((part) => part.trim()).filter(Boolean);
    let depth = 0, begin = brace + 1;
    for (let at = brace + 1; at < tree.length; at++) {
        const c = tree[at];
        if (c === "{") depth++;
        if ((c === "," && depth === 0) || (c === "}" && depth-- === 0)) {
            const part = tree.slice(begin, at);
            if (part.trim()) yield* paths(part, [...prefix, ...head]);
            begin = at + 1;
        }
    }
}

/** The modules of a crate by their path, such as `egress::authority`. */
function modules(root) {
    const found = new Map();
    const visit = (file, path) => {
        const source = code(file);
        const module = { file, path, source, handedOn: new Map(), globs: [], uses: [] };
        found.set(path.join("::"), module);
        const folder = /(lib|main|mod)\.rs$/.test(file) ? dirname(file) : file.replace(/\.rs$/, "");
        for (const [, name] of source.matchAll(/\bmod\s+(\w+)\s*;/g)) {
            const child = [join(folder, `${name}.rs`), join(folder, name, "mod.rs")].find(existsSync);
            if (child) visit(child, [...path, name]);
        }
    };
    for (const name of ["lib.rs", "main.rs"].filter((name) => existsSync(join(root, name))).slice(0, 1)) visit(join(root, name), []);
    for (const module of found.values()) {
        for (const [, visibility, tree] of module.source.matchAll(/\b(pub(?:\([^)]*\))?\s+)?use\s+([^;]+);/g)) {
            for (const { parts, name } of paths(tree)) {
                const path = absolute(parts, module.path, found);
                if (!path) continue;
                if (parts.at(-1) === "*") module.globs.push(path.slice(0, -1));
                // A private `use` is visible to the module's own children through `super::`.
                module.handedOn.set(name, path);
                if (!visibility) module.uses.push(path);
            }
        }
        const rest = module.source.replace(/\buse\s+[^;]+;/g, "");
        for (const [path] of rest.matchAll(/\b(?:crate|super|self)(?:::\w+)+/g)) {
            const target = absolute(path.split("::"), module.path, found);
            if (target) module.uses.push(target);
        }
        const children = [...rest.matchAll(/(?<![\w:])(\w+)::\w+/g)].filter(([, name]) => found.has([...module.path, name].join("::")));
        for (const [path] of children) module.uses.push([...module.path, ...path.split("::")]);
    }
    return found;
}

function absolute(parts, here, found) {
    const path = [...parts];
    if (path[0] === "crate") return path.slice(1);
    let base = [...here];
    if (path[0] === "self") return [...base, ...path.slice(1)];
    if (path[0] === "super") {
        while (path[0] === "super") { path.shift(); base.pop(); }
        return [...base, ...path];
    }
    return found.has([...here, path[0]].join("::")) ? [...here, ...path] : undefined;
}

/** The length of the part of `path` that names a module. */
function depthOf(path, found) {
    let length = path.length;
    while (length > 0 && !found.has(path.slice(0, length).join("::"))) length--;
    return length;
}

/** The module from which `path` takes a name, even when that module only hands it on. */
function face(path, found) {
    return found.get(path.slice(0, depthOf(path, found)).join("::"));
}

/** The file that defines what `path` names. */
function definition(path, found, depth = 0) {
    const length = depthOf(path, found);
    const module = face(path, found);
    const name = path[length];
    // A glob import depends on the module itself.
    if (!module || name === undefined || name === "*" || depth > 20) return module;
    const defined = new RegExp(`\\b(?:struct|enum|trait|fn|type|const|static|union|macro_rules!|mod)\\s+${name}\\b`).test(module.source);
    if (!defined && module.handedOn.has(name)) {
        const next = module.handedOn.get(name);
        if (next.join() !== path.join()) return definition([...next, ...path.slice(length + 1)], found, depth + 1);
    }
    return module;
}

/** Tarjan's strongly connected components of more than one file. */
function circles(edges) {
    const index = new Map(), low = new Map(), stack = [], on = new Set(), result = [];
    const visit = (node) => {
        index.set(node, index.size); low.set(node, index.get(node)); stack.push(node); on.add(node);
        for (const next of edges.get(node)?.keys() ?? []) {
            if (!index.has(next)) { visit(next); low.set(node, Math.min(low.get(node), low.get(next))); }
            else if (on.has(next)) low.set(node, Math.min(low.get(node), index.get(next)));
        }
        if (low.get(node) !== index.get(node)) return;
        const circle = [];
        for (let last; last !== node;) { last = stack.pop(); on.delete(last); circle.push(last); }
        if (circle.length > 1) result.push(circle.sort());
    };
    for (const node of edges.keys()) if (!index.has(node)) visit(node);
    return result;
}

let failed = 0;
for (const crate of process.argv.slice(2)) {
    const found = modules(join(crate, "src"));
    if (found.size === 0) throw new Error(`${crate}/src: no lib.rs or main.rs`);
    const seen = new Set();
    for (const resolve of [definition, face]) {
        const edges = new Map();
        for (const module of found.values()) {
            const targets = new Map();
            for (const path of module.uses) {
                const target = resolve(path, found);
                if (target && target !== module) targets.set(target.file, [...(targets.get(target.file) ?? []), path.at(-1)]);
            }
            edges.set(module.file, targets);
        }
        for (const circle of circles(edges)) {
            if (seen.has(circle.join())) continue;
            seen.add(circle.join());
            failed++;
            console.error(`error: ${circle.length} files of ${crate} import each other:`);
            for (const file of circle)
                for (const [target, names] of edges.get(file))
                    if (circle.includes(target)) console.error(`  ${file} takes ${[...new Set(names)].join(", ")} from ${target}`);
            console.error("  Move what both need into a file of its own, or hand it over as an argument.");
        }
    }
}
if (failed) process.exit(1);
