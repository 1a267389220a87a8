//! Runs pages with steps (README, tutorials, how-tos): writes their files and compares the output of their `penstock`
//! commands with the page.
//!
//! - A block whose first line is `# NAME.yaml` (or `.conf`, `.json`, `.jsonl`, `.log`) is that file.
//! - In a `console` block, a command that runs `penstock` is run in the folder of these files; its output must match
//!   the following lines. A line `…` stands for any lines, `…` within a line for any text.
//! - In an `sh` block, `penstock render … | kubectl apply` is run up to the pipe, and must succeed; the same for other
//!   `penstock` commands.
//!
//! With `PENSTOCK_WRITE=1`, the output of the commands is written into the pages.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test stops at the first surprise")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn pages() -> Vec<PathBuf> {
    let mut all = vec![root().join("README.md")];
    for folder in ["docs/how-to", "docs/tutorial"] {
        let entries = fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path());
        all.extend(entries.filter(|path| path.extension().is_some_and(|extension| extension == "md")));
    }
    all.sort();
    all
}

/// A fenced block: its language and its content.
#[derive(Debug)]
struct Block<'t> {
    language: &'t str,
    content: &'t str,
}

fn blocks(page: &str) -> Vec<Block<'_>> {
    let mut parts = page.split("```");
    parts.next();
    let mut all = Vec::new();
    while let (Some(block), rest) = (parts.next(), parts.next()) {
        if let Some((language, content)) = block.split_once('\n') {
            all.push(Block { language, content });
        }
        if rest.is_none() {
            break;
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
        goes_on = line.ends_with('\\');
    }
    all
}

/// Whether a command can be run by a test.
fn runs(command: &str) -> bool {
    let first = command.split_whitespace().next().unwrap_or_default();
    (first == "penstock" || command.contains("| penstock"))
        && !command.contains("kubectl")
        && !command.contains("--from-cluster")
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

/// Runs a page; returns the differences, and the corrected page.
fn walk(page: &str) -> (Vec<String>, String, usize) {
    let folder = tempfile::tempdir().unwrap();
    let (mut wrong, mut right, mut count) = (Vec::new(), page.to_owned(), 0);
    for block in blocks(page) {
        if let Some(name) = file_name(&block) {
            fs::write(folder.path().join(name), block.content).unwrap();
        }
    }
    // The README shows the result of a mistake in its policy.
    if let Ok(policy) = fs::read_to_string(folder.path().join("shop.yaml")) {
        fs::write(folder.path().join("mistake.yaml"), policy.replacen("matches:", "matchs:", 1)).unwrap();
    }
    for block in blocks(page) {
        match block.language {
            "console" => {
                let all = commands(block.content);
                if !all.iter().all(|(command, _)| runs(command)) {
                    continue;
                }
                let mut written = String::new();
                let mut differs = false;
                for (command, expected) in all {
                    let (_, printed) = run(folder.path(), &command);
                    count += 1;
                    let lines: Vec<&str> = printed.trim_end().lines().collect();
                    // A page without output proves nothing.
                    if expected == ["…"] || !shown(&expected, &lines) {
                        differs = true;
                        wrong.push(format!("$ {command}\n{printed}"));
                    }
                    written.push_str(&format!(
                        "$ {command}\n{}\n",
                        lines.iter().map(|line| without_chance(line)).collect::<Vec<_>>().join("\n")
                    ));
                }
                if differs {
                    right = right.replacen(block.content, &written, 1);
                }
            }
            "sh" => {
                let joined = block.content.replace("\\\n", " ");
                // A block that writes a policy starts with an empty folder.
                let fresh = tempfile::tempdir().unwrap();
                let folder = if joined.contains("penstock init") { &fresh } else { &folder };
                for line in joined.lines() {
                    let command = line.split(" | kubectl").next().unwrap();
                    if line.starts_with("penstock ") && runs(command) {
                        let (fine, printed) = run(folder.path(), command);
                        count += 1;
                        if !fine {
                            wrong.push(format!("{command}\n{printed}"));
                        }
                    }
                }
            }
            _ => {}
        }
    }
    (wrong, right, count)
}

#[test]
fn the_commands_of_the_walkthroughs_print_what_they_show() {
    let mut wrong = Vec::new();
    for path in pages() {
        let page = fs::read_to_string(&path).unwrap();
        let (found, right, count) = walk(&page);
        assert!(count > 0, "{}: no command of it is run", path.display());
        if !found.is_empty() && std::env::var_os("PENSTOCK_WRITE").is_some() {
            fs::write(&path, right).unwrap();
        }
        wrong.extend(found.into_iter().map(|found| format!("{}: {found}", path.display())));
    }
    assert!(wrong.is_empty(), "not what the pages show (PENSTOCK_WRITE=1 writes them anew):\n\n{}", wrong.join("\n\n"));
}

#[test]
fn a_page_that_shows_something_else_is_found() {
    let page = "# x\n\n```yaml\n# policy.yaml\nroutes: {default: stable}\n```\n\n```console\n$ penstock check policy.yaml\npolicy.yaml: SHOWN\n```\n";
    assert_eq!(walk(&page.replace("SHOWN", "valid")), (vec![], page.replace("SHOWN", "valid"), 1));
    assert_eq!(walk(&page.replace("SHOWN", "v…d")).0, Vec::<String>::new());
    let (wrong, right, _) = walk(&page.replace("SHOWN", "refused"));
    assert_eq!((wrong.len(), right), (1, page.replace("SHOWN", "valid")));
    assert!(shown(&["a", "…", "c"], &["a", "b", "b", "c"]) && !shown(&["a", "…", "c"], &["a", "b"]));
    assert!(fits("a…c…e", "abcde") && !fits("a…c", "abd"));
}
