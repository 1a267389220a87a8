//! The commands in `docs/cli.md` and `docs/learn.md` print what the pages show.
//!
//! A YAML block that starts with `# name.yaml` is that file. In a console block, a line `…` stands for any lines.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test stops at the first surprise")]

use std::path::Path;
use std::process::Command;

fn blocks<'t>(text: &'t str, language: &str) -> Vec<&'t str> {
    let fence = format!("```{language}\n");
    text.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

/// A command, possibly over several lines, and its output.
fn commands(block: &str) -> Vec<(String, Vec<&str>)> {
    let mut commands: Vec<(String, Vec<&str>)> = Vec::new();
    let mut continues = false;
    for line in block.lines() {
        if let Some(command) = line.strip_prefix("$ ") {
            commands.push((command.to_owned(), Vec::new()));
        } else if continues {
            let (command, _) = commands.last_mut().unwrap();
            *command += &format!("\n{line}");
        } else {
            commands.last_mut().unwrap().1.push(line);
        }
        let command = &commands.last().unwrap().0;
        let is_part = line.strip_prefix("$ ").unwrap_or(line).len() <= command.len()
            && command.ends_with(line.strip_prefix("$ ").unwrap_or(line));
        let open_loop = command.contains("; do") && !command.contains("done");
        continues = is_part && (line.ends_with('\\') || open_loop);
    }
    commands
}

/// Whether `shown` matches `printed`, with `…` for any lines.
fn agrees(shown: &[&str], printed: &[&str]) -> bool {
    match shown.split_first() {
        None => printed.is_empty(),
        Some((&"…", rest)) => (0..=printed.len()).any(|skipped| agrees(rest, &printed[skipped..])),
        Some((line, rest)) => {
            printed.split_first().is_some_and(|(first, others)| line == first && agrees(rest, others))
        }
    }
}

#[test]
fn the_commands_of_the_page_print_what_it_shows() {
    run_page("cli.md", &[], 8);
}

#[test]
fn a_recorded_week_becomes_an_enforced_policy_as_the_page_shows() {
    run_page("learn.md", &["examples/shop-week.log"], 6);
}

/// Runs the commands of a page with its files; there must be at least this many.
fn run_page(page: &str, files_beside: &[&str], least: usize) {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let page = std::fs::read_to_string(docs.join(page)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for file in files_beside {
        let name = Path::new(file).file_name().unwrap();
        std::fs::copy(docs.join(file), folder.path().join(name)).unwrap();
    }
    let mut files = 0;
    for block in blocks(&page, "yaml") {
        if let Some(name) =
            block.strip_prefix("# ").and_then(|rest| rest.lines().next()).filter(|name| name.ends_with(".yaml"))
        {
            std::fs::write(folder.path().join(name), block).unwrap();
            files += 1;
        }
    }
    assert!(files >= 1);
    let binary = Path::new(env!("CARGO_BIN_EXE_penstock")).parent().unwrap();
    let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap());
    let mut run = 0;
    for block in blocks(&page, "console") {
        for (command, shown) in commands(block) {
            let mut shell = Command::new("sh");
            shell.args(["-c", &format!("{{ {command}\n}} 2>&1")]).current_dir(folder.path()).env("PATH", &path);
            let output = shell.env_remove("CLICOLOR_FORCE").output().unwrap();
            let printed = String::from_utf8(output.stdout).unwrap();
            let lines: Vec<&str> = printed.lines().collect();
            assert!(agrees(&shown, &lines), "$ {command}\n{printed}");
            run += 1;
        }
    }
    assert!(run >= least, "{run}");
}
