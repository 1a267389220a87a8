// vex.mjs FOLDER VERSION: prints the OpenVEX document of a release, made from the statements in FOLDER (their format is in vex/README.md). Prints
// nothing when there is no statement. The output is reproducible.

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

const MODULES = ["header-routing", "canary", "rate-limit", "egress-allowlist", "suite"];
const PRODUCTS = ["penstock", "penstock-native", ...MODULES.map((module) => `penstock-${module}`)];
const JUSTIFICATIONS = [
  "component_not_present",
  "vulnerable_code_not_present",
  "vulnerable_code_not_in_execute_path",
  "vulnerable_code_cannot_be_controlled_by_adversary",
  "inline_mitigations_already_exist",
];
// The fields that each status requires.
const STATUSES = {
  not_affected: { field: "justification", words: JUSTIFICATIONS },
  affected: { field: "action_statement" },
  fixed: {},
  under_investigation: {},
};
const FIELDS = [
  "vulnerability", "timestamp", "products", "subcomponents", "status", "status_notes", "justification", "impact_statement", "action_statement",
];

const isText = (value) => typeof value === "string" && value.trim() !== "";
const isList = (value, test) => Array.isArray(value) && value.length > 0 && value.every(test);
const oneOf = (words) => `expected one of: ${words.join(", ")}`;

// The problem of a statement, with a suggestion.
function* problems(statement) {
  if (statement === null || typeof statement !== "object" || Array.isArray(statement)) {
    yield "expected an object";
    return;
  }
  for (const field of Object.keys(statement)) {
    if (!FIELDS.includes(field)) yield `unknown field \`${field}\`; ${oneOf(FIELDS)}`;
  }
  if (!isText(statement.vulnerability?.name)) yield "vulnerability.name is missing: the name of the advisory, such as RUSTSEC-2026-0001";
  if (!isText(statement.timestamp) || !/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/.test(statement.timestamp)) {
    yield "timestamp: expected a time in UTC, such as 2026-11-27T00:00:00Z";
  }
  const { products, subcomponents, status } = statement;
  if (products !== undefined && !isList(products, (name) => PRODUCTS.includes(name))) yield `products: ${oneOf(PRODUCTS)}`;
  if (subcomponents !== undefined && !isList(subcomponents, (name) => isText(name) && name.startsWith("pkg:"))) {
    yield "subcomponents: expected package URLs, such as pkg:cargo/example@1.2.3";
  }
  const needs = Object.hasOwn(STATUSES, status ?? "") ? STATUSES[status] : undefined;
  if (needs === undefined) yield `status: ${oneOf(Object.keys(STATUSES))}`;
  else if (needs.words && !needs.words.includes(statement[needs.field])) yield `${needs.field}: ${oneOf(needs.words)}`;
  else if (needs.field && !isText(statement[needs.field])) yield `status ${status} needs ${needs.field}`;
}

function read(path) {
  try {
    return JSON.parse(readFileSync(path, "utf8"));
  } catch (error) {
    return { unreadable: error.message };
  }
}

const [folder, version] = process.argv.slice(2);
if (!folder || !version) {
  console.error("error: vex.mjs wants the folder of the statements and the version\n       such as: node scripts/release/vex.mjs vex 0.1.0");
  process.exit(2);
}
const wrong = [];
const statements = readdirSync(folder).filter((name) => name.endsWith(".json")).sort().map((name) => {
  const statement = read(join(folder, name));
  const found = statement?.unreadable === undefined ? [...problems(statement)] : [`not JSON: ${statement.unreadable}`];
  wrong.push(...found.map((problem) => `error: ${name}: ${problem}`));
  return statement;
});
if (wrong.length > 0) {
  console.error(wrong.join("\n"));
  process.exit(1);
}
if (statements.length > 0) {
  const document = {
    "@context": "https://openvex.dev/ns/v0.2.0",
    "@id": `https://github.com/penstock-proxy/penstock/releases/download/v${version}/penstock.openvex.json`,
    author: "The maintainers of Penstock",
    timestamp: statements.map((statement) => statement.timestamp).sort().at(-1),
    version: 1,
    statements: statements.map(({ products = PRODUCTS, subcomponents = [], ...rest }) => ({
      ...rest,
      products: products.map((name) => ({
        "@id": `pkg:cargo/${name}@${version}`,
        ...(subcomponents.length > 0 && { subcomponents: subcomponents.map((id) => ({ "@id": id })) }),
      })),
    })),
  };
  console.log(JSON.stringify(document, null, 2));
}
