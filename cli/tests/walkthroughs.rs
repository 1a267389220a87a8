//! Runs the commands of the documentation and compares their output with the pages.
//!
//! - A block whose first line is `# NAME.yaml` (or `.conf`, `.json`, `.jsonl`, `.log`) is that file. The files of
//!   `docs/examples` are there, too.
//! - The commands of a `console` block are run in the folder of these files; their output must match the following
//!   lines. A line `…` stands for any lines, `…` within a line for any text.
//! - A `console` block that a test cannot run has the comment `<!-- not run: REASON -->` before it.
//! - In README.md, the how-to pages and the tutorials, `penstock` commands of `sh` blocks are run, too, and must succeed;
//!   `penstock render … | kubectl apply` up to the pipe. If all commands of a block were run and the next paragraph says
//!   what "you should see", each `text` in backticks of that sentence must be in the output.
//!
//! With `PENSTOCK_WRITE=1`, the output of the commands is written into the pages.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may panic")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// README.md and all pages of `docs/`.
fn pages() -> Vec<PathBuf> {
    let (mut all, mut folders) = (vec![root().join("README.md")], vec![root().join("docs")]);
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            match path.extension() {
                Some(extension) if extension == "md" => all.push(path),
                _ if path.is_dir() => folders.push(path),
                _ => {}
            }
        }
    }
    all.sort();
    all
}

/// Whether a reader follows this page step by step, so that its `sh` blocks are run, too.
fn has_steps(path: &Path) -> bool {
    path.ends_with("README.md") || ["how-to", "tutorial"].iter().any(|folder| path.parent().unwrap().ends_with(folder))
}

/// A fenced block, and the text around it.
#[derive(Debug)]
struct Block<'t> {
    before: &'t str,
    language: &'t str,
    content: &'t str,
    after: &'t str,
}

impl Block<'_> {
    /// Whether the page says that the block is not run, and why.
    fn is_marked(&self) -> bool {
        let last = self.before.trim_end().lines().next_back().unwrap_or_default();
        last.strip_prefix("<!-- not run: ")
            .and_then(|rest| rest.strip_suffix(" -->"))
            .is_some_and(|why| !why.is_empty())
    }

    /// The texts that the sentence "You should see" after the block quotes.
    fn quoted(&self) -> Vec<&str> {
        let paragraph = self.after.trim_start().split("\n\n").next().unwrap_or_default();
        let sentence = paragraph.strip_prefix("You should see").map(|rest| rest.split(". ").next().unwrap_or(rest));
        sentence.map(|sentence| sentence.split('`').skip(1).step_by(2).collect()).unwrap_or_default()
    }
}

fn blocks(page: &str) -> Vec<Block<'_>> {
    let parts: Vec<&str> = page.split("```").collect();
    let mut all = Vec::new();
    for at in (1..parts.len()).step_by(2) {
        if let Some((language, content)) = parts[at].split_once('\n') {
            let after = parts.get(at + 1).copied().unwrap_or_default();
            all.push(Block { before: parts[at - 1], language, content, after });
        }
    }
    all
}

/// The file that a block contains.
fn file_name(block: &Block<'_>) -> Option<String> {
    let name = block.content.lines().next()?.strip_prefix("# ")?;
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    let known = [".yaml", ".conf", ".json", ".jsonl", ".log"].iter().any(|end| name.ends_with(end));
    (plain && known && block.language != "sh" && block.language != "console").then(|| name.to_owned())
}

/// The commands of a console block, each with the output on the page.
fn commands(content: &str) -> Vec<(String, Vec<&str>)> {
    let mut all: Vec<(String, Vec<&str>)> = Vec::new();
    let mut goes_on = false;
    for line in content.lines() {
        match (goes_on, line.strip_prefix("$ "), all.last_mut()) {
            (true, _, Some((command, _))) => {
                command.push('\n');
                command.push_str(line);
            }
            (_, Some(command), _) => all.push((command.to_owned(), Vec::new())),
            (_, None, Some((_, shown))) => shown.push(line),
            (_, None, None) => panic!("a console block begins with `$ `: {content}"),
        }
        let command = all.last().map(|(command, _)| command.as_str()).unwrap_or_default();
        let is_command = command.ends_with(line.strip_prefix("$ ").unwrap_or(line));
        let is_loop = command.contains("; do") && !command.contains("done");
        goes_on = line.ends_with('\\') || (is_command && is_loop);
    }
    all
}

/// Whether a command can be run by a test.
fn runs(command: &str) -> bool {
    let first = command.split_whitespace().next().unwrap_or_default();
    (["penstock", "sed", "for"].contains(&first) || command.contains("| penstock") || command.contains("; penstock"))
        && !["kubectl", "--from-cluster", "penstock dash"].iter().any(|word| command.contains(word))
}

/// Runs a command in `folder`; returns both outputs together, and whether it succeeded.
fn run(folder: &Path, command: &str) -> (bool, String) {
    let tools = Path::new(env!("CARGO_BIN_EXE_penstock")).parent().unwrap();
    let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap());
    let script = format!("exec 2>&1; {command}");
    let output = Command::new("bash").args(["-c", &script]).current_dir(folder).env("PATH", path).output().unwrap();
    (output.status.success(), String::from_utf8(output.stdout).unwrap())
}

/// Whether `text` matches `pattern`, in which `…` stands for any text.
fn fits(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('…');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let parts: Vec<&str> = parts.collect();
    for (index, part) in parts.iter().enumerate() {
        let at = if index + 1 == parts.len() {
            rest.ends_with(part).then(|| rest.len() - part.len())
        } else {
            rest.find(part)
        };
        let Some(at) = at else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.is_empty()
}

/// Whether lines match those on a page; a line `…` stands for any number of lines.
fn shown(pattern: &[&str], lines: &[&str]) -> bool {
    match (pattern.split_first(), lines.split_first()) {
        (Some((&"…", rest)), _) => (0..=lines.len()).any(|skipped| shown(rest, &lines[skipped..])),
        (Some((first, pattern)), Some((line, lines))) => fits(first, line) && shown(pattern, lines),
        (None, None) => true,
        _ => false,
    }
}

/// A line in the form for a page: identifiers that vary are replaced.
fn without_chance(line: &str) -> String {
    const IDENTIFIER: &str = "x-penstock-decision-id: ";
    line.split_once(IDENTIFIER).map_or_else(|| line.to_owned(), |(before, _)| format!("{before}{IDENTIFIER}…"))
}

/// The result of running a page.
#[derive(Debug, Default, PartialEq)]
struct Walk {
    /// The differences between the page and what the commands do.
    wrong: Vec<String>,
    /// The page with the actual output.
    corrected: String,
    /// The number of commands that were run.
    count: usize,
}

impl Walk {
    /// Runs a page; with `steps`, its `sh` blocks, too.
    fn of(page: &str, steps: bool) -> Walk {
        let mut walk = Walk { corrected: page.to_owned(), ..Walk::default() };
        let folder = tempfile::tempdir().unwrap();
        for example in fs::read_dir(root().join("docs/examples")).unwrap().map(Result::unwrap) {
            fs::copy(example.path(), folder.path().join(example.file_name())).unwrap();
        }
        for block in blocks(page) {
            if let Some(name) = file_name(&block) {
                fs::write(folder.path().join(name), block.content).unwrap();
            }
        }
        // The README shows the result of a mistake in its policy.
        if let Ok(policy) = fs::read_to_string(folder.path().join("shop.yaml")) {
            fs::write(folder.path().join("mistake.yaml"), policy.replacen("matches:", "matchs:", 1)).unwrap();
        }
        for block in blocks(page).iter().filter(|block| !block.is_marked()) {
            match block.language {
                "console" => walk.console(folder.path(), block),
                "sh" if steps => walk.steps(folder.path(), block),
                _ => {}
            }
        }
        walk
    }

    /// Runs the commands of a `console` block and compares their output.
    fn console(&mut self, folder: &Path, block: &Block<'_>) {
        let (mut written, mut differs) = (String::new(), false);
        for (command, expected) in commands(block.content) {
            if !runs(&command) {
                self.wrong
                    .push(format!("$ {command}\ncannot be run: write `<!-- not run: REASON -->` before the block"));
                return;
            }
            let (_, printed) = run(folder, &command);
            self.count += 1;
            let lines: Vec<&str> = printed.trim_end().lines().collect();
            // A page without output proves nothing.
            if expected == ["…"] || !shown(&expected, &lines) {
                differs = true;
                self.wrong.push(format!("$ {command}\n{printed}"));
                let lines: Vec<String> = lines.iter().map(|line| without_chance(line)).collect();
                written.push_str(&format!("$ {command}\n{}\n", lines.join("\n")));
            } else {
                let lines: String = expected.iter().map(|line| format!("{line}\n")).collect();
                written.push_str(&format!("$ {command}\n{lines}"));
            }
        }
        if differs {
            self.corrected = self.corrected.replacen(block.content, &written, 1);
        }
    }

    /// Runs the `penstock` commands of an `sh` block.
    fn steps(&mut self, folder: &Path, block: &Block<'_>) {
        let joined = block.content.replace("\\\n", " ");
        // A block that writes a policy starts with an empty folder.
        let fresh = tempfile::tempdir().unwrap();
        let folder = if joined.contains("penstock init") { fresh.path() } else { folder };
        let (mut all, mut output) = (true, String::new());
        for line in joined.lines() {
            let command = line.split(" | kubectl").next().unwrap();
            all &= command == line;
            if line.starts_with("penstock ") && runs(command) {
                let (fine, printed) = run(folder, command);
                self.count += 1;
                if !fine {
                    self.wrong.push(format!("{command}\n{printed}"));
                }
                output.push_str(&printed);
            } else {
                all = false;
            }
        }
        if all {
            for text in block.quoted().into_iter().filter(|text| !fits(&format!("…{text}…"), &output)) {
                self.wrong.push(format!("the page says that one sees `{text}`, but the commands print:\n{output}"));
            }
        }
    }
}

#[test]
fn the_commands_of_the_documentation_print_what_it_shows() {
    let mut wrong = Vec::new();
    for path in pages() {
        let page = fs::read_to_string(&path).unwrap();
        let walk = Walk::of(&page, has_steps(&path));
        assert!(walk.count > 0 || !has_steps(&path), "{}: no command of it is run", path.display());
        if !walk.wrong.is_empty() && std::env::var_os("PENSTOCK_WRITE").is_some() {
            fs::write(&path, walk.corrected).unwrap();
        }
        wrong.extend(walk.wrong.into_iter().map(|found| format!("{}: {found}", path.display())));
    }
    assert!(wrong.is_empty(), "not what the pages show (PENSTOCK_WRITE=1 writes them anew):\n\n{}", wrong.join("\n\n"));
}

#[test]
fn a_page_that_shows_something_else_is_found() {
    let page = "# x\n\n```yaml\n# policy.yaml\nroutes: {default: stable}\n```\n\n```console\n$ penstock check policy.yaml\npolicy.yaml: SHOWN\n```\n";
    let right = |shown: &str| Walk { corrected: page.replace("SHOWN", shown), count: 1, ..Walk::default() };
    assert_eq!(Walk::of(&page.replace("SHOWN", "valid"), false), right("valid"));
    assert_eq!(Walk::of(&page.replace("SHOWN", "v…d"), false).wrong, Vec::<String>::new());
    let walk = Walk::of(&page.replace("SHOWN", "refused"), false);
    assert_eq!((walk.wrong.len(), walk.corrected), (1, page.replace("SHOWN", "valid")));
    assert!(shown(&["a", "…", "c"], &["a", "b", "b", "c"]) && !shown(&["a", "…", "c"], &["a", "b"]));
    assert!(fits("a…c…e", "abcde") && !fits("a…c", "abd"));
}

#[test]
fn a_block_that_is_not_run_says_why() {
    let page = "MARK\n\n```console\n$ envoy -c envoy.yaml\n```\n";
    assert_eq!(Walk::of(page, false).wrong.len(), 1);
    assert_eq!(Walk::of(&page.replace("MARK", "<!-- not run: it needs Envoy -->"), false).wrong, Vec::<String>::new());
    assert_eq!(Walk::of(&page.replace("MARK", "<!-- not run:  -->"), false).wrong.len(), 1);
}

#[test]
fn a_step_that_prints_something_else_than_its_page_quotes_is_found() {
    let page =
        "```sh\npenstock init routing\npenstock check policy.yaml\n```\n\nYou should see `policy.yaml: SHOWN`.\n";
    assert_eq!(Walk::of(&page.replace("SHOWN", "valid"), true).wrong, Vec::<String>::new());
    assert_eq!(Walk::of(&page.replace("SHOWN", "v…d"), true).wrong, Vec::<String>::new());
    assert_eq!(Walk::of(&page.replace("SHOWN", "refused"), true).wrong.len(), 1);
}
