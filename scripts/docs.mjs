// docs.mjs prepare FOLDER: writes the source of the site for mdBook: the pages of docs/ and the README, with links to other files of the
// repository changed to its published address.
// docs.mjs check FOLDER: checks that every link of the built site leads to an existing page, file or heading.
import { cpSync, existsSync, mkdirSync, readFileSync, readdirSync, statSync, writeFileSync } from "node:fs";
import { dirname, join, posix, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const REPOSITORY = "https://github.com/penstock-proxy/penstock";
const root = resolve(dirname(fileURLToPath(import.meta.url)), "..");

/** Every file below a folder, as a path relative to it. */
function files(folder, below = "") {
  return readdirSync(join(folder, below), { withFileTypes: true }).flatMap((entry) =>
    entry.isDirectory() ? files(folder, posix.join(below, entry.name)) : [posix.join(below, entry.name)]);
}

/** The links of a page that is `from` in the repository and `to` in the site, changed to their targets there. */
function relink(text, from, to) {
  return text.replace(/(\]\()([^)\s]+)(\))/g, (whole, before, link, after) => {
    if (/^[a-z]+:|^#/.test(link)) return whole;
    const [path, anchor] = link.split("#");
    const target = posix.join(posix.dirname(from), path);
    const suffix = anchor ? `#${anchor}` : "";
    if (target === "README.md") return `${before}${posix.relative(posix.dirname(to), "introduction.md")}${suffix}${after}`;
    if (target.startsWith("docs/") && existsSync(join(root, target)) && statSync(join(root, target)).isFile()) {
      return `${before}${posix.relative(posix.dirname(to), target.slice("docs/".length))}${suffix}${after}`;
    }
    const kind = existsSync(join(root, target)) && statSync(join(root, target)).isDirectory() ? "tree" : "blob";
    return `${before}${REPOSITORY}/${kind}/main/${target.replace(/\/$/, "")}${suffix}${after}`;
  });
}

function prepare(folder) {
  const source = join(folder, "src");
  for (const file of files(join(root, "docs"))) {
    const into = file === "book.toml" ? join(folder, file) : join(source, file);
    mkdirSync(dirname(into), { recursive: true });
    if (file.endsWith(".md")) {
      writeFileSync(into, relink(readFileSync(join(root, "docs", file), "utf8"), `docs/${file}`, file));
    } else {
      cpSync(join(root, "docs", file), into);
    }
  }
  writeFileSync(join(source, "introduction.md"), relink(readFileSync(join(root, "README.md"), "utf8"), "README.md", "introduction.md"));

  const chapters = new Set([...readFileSync(join(source, "SUMMARY.md"), "utf8").matchAll(/\]\(([^)]+)\)/g)].map(([, file]) => file));
  const missing = files(source).filter((file) => file.endsWith(".md") && file !== "SUMMARY.md" && !chapters.has(file));
  if (missing.length) fail(missing.map((file) => `docs/${file} is in no chapter of docs/SUMMARY.md`));
}

function check(folder) {
  const pages = new Map(files(folder).filter((file) => file.endsWith(".html"))
    .map((file) => [file, readFileSync(join(folder, file), "utf8")]));
  const headings = new Map([...pages].map(([file, text]) =>
    [file, new Set([...text.matchAll(/\sid="([^"]+)"/g)].map(([, id]) => id))]));
  const wrong = new Set();
  let count = 0;
  for (const [file, text] of pages) {
    // These two contain the other pages, or are not pages.
    if (file === "print.html" || file === "404.html") continue;
    for (const [, link] of text.matchAll(/\s(?:href|src)="([^"]*)"/g)) {
      if (/^[a-z]+:|^\/\//.test(link) || link === "") continue;
      count += 1;
      const [path, anchor] = decodeURIComponent(link.replaceAll("&amp;", "&")).split("#");
      const target = path === "" ? file : posix.join(posix.dirname(file), path);
      if (!existsSync(join(folder, target))) wrong.add(`${file}: ${link}: there is no such file`);
      else if (anchor && headings.has(target) && !headings.get(target).has(anchor)) wrong.add(`${file}: ${link}: there is no such heading`);
    }
  }
  if (wrong.size) fail([...wrong]);
  console.log(`${pages.size} pages, ${count} links: all lead somewhere`);
}

function fail(lines) {
  for (const line of lines) console.error(`error: ${line}`);
  process.exit(1);
}

const [command, folder] = process.argv.slice(2);
if (command === "prepare" && folder) prepare(resolve(folder));
else if (command === "check" && folder) check(relative(process.cwd(), resolve(folder)) || ".");
else fail(["usage: docs.mjs prepare|check FOLDER"]);
