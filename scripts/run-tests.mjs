// Builds all tests of the workspace at once and runs those of some packages: node scripts/run-tests.mjs OPTION... [-- ARGUMENT...]
//
//   --package NAME       its tests; may be repeated
//   --except NAME        the tests of all packages but this one; may be repeated
//   --test NAME          only these files in tests/, in this order; may be repeated
//   --alone NAME         runs this file while no other runs, after the others; may be repeated
//   --jobs N             how many files run side by side (default: 1)
//
// `cargo test --package` enables fewer features of shared dependencies than `cargo test --workspace`, so every selection of packages has
// its own builds of them and of our crates. This script always builds the whole workspace, and so each crate once.

import { spawn, spawnSync } from "node:child_process";
import { dirname } from "node:path";

function fail(message) {
    console.error(`error: ${message}`);
    process.exit(2);
}

const options = { package: [], except: [], test: [], alone: [], jobs: [] };
const words = process.argv.slice(2);
while (words.length > 0 && words[0] !== "--") {
    const name = words.shift().replace(/^--/, "");
    if (!(name in options) || words.length === 0) fail(`unknown option or no value: ${name}`);
    options[name].push(words.shift());
}
const passed = words.slice(1);
const jobs = Number(options.jobs.at(-1) ?? 1);
/** The property tests try the same cases in every run, so that a change fails only by what it does; `make properties` tries others. */
const seed = process.env.PROPTEST_RNG_SEED || "1";

/** The test programs of the workspace, as cargo lists them. */
function built() {
    const build = ["test", "--workspace", "--locked", "--no-run", "--message-format=json-render-diagnostics"];
    const cargo = spawnSync("cargo", build, { stdio: ["ignore", "pipe", "inherit"], maxBuffer: 1 << 30 });
    if (cargo.status !== 0) process.exit(cargo.status ?? 1);
    const messages = cargo.stdout.toString().split("\n").filter(Boolean).map((line) => JSON.parse(line));
    return messages.filter((message) => message.reason === "compiler-artifact" && message.profile.test && message.executable).map((message) => ({
        // path+file:///penstock/filters/policy#penstock-policy@0.1.0, or without the name where the folder has it.
        package: /#(?:([^@]+)@)?[^#]*$/.exec(message.package_id)[1] ?? /([^/#]+)#[^#]*$/.exec(message.package_id)[1],
        kind: message.target.kind[0],
        name: message.target.name,
        program: message.executable,
        folder: dirname(message.manifest_path),
    }));
}

function selected(all) {
    for (const name of [...options.package, ...options.except]) {
        if (!all.some((one) => one.package === name)) fail(`no package ${name} has tests`);
    }
    const here = all.filter((one) => (options.package.length === 0 || options.package.includes(one.package)) && !options.except.includes(one.package));
    if (options.test.length === 0) return here;
    return options.test.map((name) => {
        const found = here.filter((one) => one.kind === "test" && one.name === name);
        if (found.length !== 1) fail(`there are ${found.length} files tests/${name}`);
        return found[0];
    });
}

/** Runs one program and prints its output when it has ended; returns whether it succeeded. */
function run(one) {
    const begin = Date.now();
    return new Promise((done) => {
        const env = { ...process.env, CARGO: "cargo", CARGO_MANIFEST_DIR: one.folder, PROPTEST_RNG_SEED: seed };
        if (seed === "random") delete env.PROPTEST_RNG_SEED;
        const child = spawn(one.program, passed, { cwd: one.folder, env, stdio: ["ignore", "pipe", "pipe"] });
        const output = [];
        for (const stream of [child.stdout, child.stderr]) stream.on("data", (bytes) => output.push(bytes));
        child.on("error", (error) => output.push(Buffer.from(`${error}\n`)));
        child.on("close", (code, signal) => {
            const seconds = ((Date.now() - begin) / 1000).toFixed(1);
            const name = one.kind === "test" ? `tests/${one.name}` : `${one.kind} ${one.name}`;
            console.log(`--- ${one.package}, ${name}: ${code === 0 ? "passed" : `FAILED (${signal ?? code})`} in ${seconds} s`);
            process.stdout.write(Buffer.concat(output));
            done(code === 0 ? [] : [`${one.package}, ${name}`]);
        });
    });
}

/** Runs these programs, `width` at a time; returns the names of those that failed. */
async function runAll(programs, width) {
    const waiting = [...programs];
    const worker = async () => {
        const failed = [];
        while (waiting.length > 0) failed.push(...(await run(waiting.shift())));
        return failed;
    };
    return (await Promise.all(Array.from({ length: width }, worker))).flat();
}

const programs = selected(built());
for (const name of options.alone) {
    if (!programs.some((one) => one.name === name)) fail(`--alone ${name}: it is not among the tests that run`);
}
const isAlone = (one) => options.alone.includes(one.name);
const failed = await runAll(programs.filter((one) => !isAlone(one)), jobs);
failed.push(...(await runAll(programs.filter(isAlone), 1)));
if (failed.length > 0) {
    console.log(`FAILED: ${failed.join("; ")}`);
    process.exit(1);
}
