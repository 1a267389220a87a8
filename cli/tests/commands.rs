//! What holds for every command: help with examples, completions, manual pages, pipes that close.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::process::{Command, Stdio};

use clap::CommandFactory;
use common::{folder, penstock, penstock_in};
use penstock::command::Cli;

#[test]
fn every_command_has_help_with_an_example_and_every_argument_says_what_it_is() {
    let command = Cli::command();
    command.clone().debug_assert();
    for subcommand in command.get_subcommands() {
        let name = subcommand.get_name();
        let run = penstock(&[name, "--help"], "");
        assert_eq!(run.status, 0, "{name}");
        assert!(run.out.contains("Example"), "{name}: {}", run.out);
        for argument in subcommand.get_arguments() {
            assert!(argument.get_help().is_some(), "{name} {}", argument.get_id());
        }
    }
}

#[test]
fn completions_and_manual_pages_know_every_command() {
    let names: Vec<String> = Cli::command().get_subcommands().map(|command| command.get_name().to_owned()).collect();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let run = penstock(&["completions", shell], "");
        assert!(run.status == 0 && names.iter().all(|name| run.out.contains(name)), "{shell}");
    }
    let pages = tempfile::tempdir().unwrap();
    assert_eq!(penstock(&["man", pages.path().to_str().unwrap()], "").status, 0);
    for name in &names {
        let page = std::fs::read_to_string(pages.path().join(format!("penstock-{name}.1"))).unwrap();
        assert!(page.contains(".SH SYNOPSIS"), "{name}");
    }
    assert!(penstock(&["man"], "").out.contains(".TH penstock"));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    for arguments in [&["schema"][..], &["completions", "zsh"], &["render", "everything.yaml", "--for", "envoy"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_penstock"));
        command.args(arguments).current_dir(folder()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        let assumed = |line: &str| line.starts_with("penstock: assumed: ");
        assert!(output.status.success() && errors.lines().all(assumed), "{arguments:?}: {errors}");
    }
}

#[test]
fn colour_is_for_terminals_and_never_against_no_color() {
    let colour = |name: &str, value: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_penstock"));
        command.args(["check", "manifests.yaml"]).current_dir(folder()).env("CLICOLOR_FORCE", "0").env(name, value);
        String::from_utf8(command.output().unwrap().stdout).unwrap().contains('\u{1b}')
    };
    assert!(colour("CLICOLOR_FORCE", "1"));
    assert!(!colour("NO_COLOR", "1"));
}

#[test]
fn what_an_import_loses_goes_to_standard_error_and_under_strict_decides() {
    let folder = tempfile::tempdir().unwrap();
    let route = "kind: VirtualService\nmetadata: {name: a}\nspec:\n  hosts: ['*']\n  http:\n  - mirror: {host: b}\n    route: [{destination: {host: c}}]\n";
    std::fs::write(folder.path().join("route.yaml"), route).unwrap();
    let run = penstock_in(folder.path(), &["import", "route.yaml"], "");
    assert_eq!(run.status, 0);
    assert!(run.out.contains("route: c"), "{}", run.out);
    assert!(run.err.contains("not imported: route.yaml: VirtualService a: spec.http[0].mirror"), "{}", run.err);
    assert_eq!(penstock_in(folder.path(), &["import", "--strict", "route.yaml"], "").status, 1);
    // A folder is read like its files.
    assert_eq!(penstock_in(folder.path(), &["import", "."], "").out, run.out);
    // What it prints is a policy.
    assert_eq!(penstock_in(folder.path(), &["check", "-"], &run.out).status, 0);
    assert_eq!(penstock_in(folder.path(), &["import", "-"], "kind: Service\n").status, 2);
}

#[test]
fn the_dash_tells_the_terminal_which_sources_give_nothing() {
    use std::io::{BufRead as _, BufReader};
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_penstock"));
    command.args(["dash", "--listen", "127.0.0.1:0", "--envoy", "127.0.0.1:1", "--tail", "/nosuch/access.log"]);
    command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped());
    let mut dash = command.spawn().unwrap();
    let lines = BufReader::new(dash.stderr.take().unwrap()).lines().map_while(Result::ok);
    let told: Vec<String> = lines.take(2).collect();
    dash.kill().unwrap();
    dash.wait().unwrap();
    let told = told.join("\n");
    for part in [
        "penstock: access log /nosuch/access.log gives nothing: No such file or directory. Give the file to which Envoy writes",
        "penstock: http://127.0.0.1:1 gives nothing: ",
        "is this the admin interface of an Envoy (`admin.address` in its bootstrap)",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert!(!told.contains("os error"), "{told}");
}
