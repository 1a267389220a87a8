//! Wrong usage of the command line: adds to clap's errors what would be right.

use std::ffi::OsString;

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command, Error};

/// The error with tips: what missing arguments are, the known subcommands, where an option belongs, and an example.
pub fn with_tips(mut error: Error, mut root: Command, arguments: &[OsString]) -> Error {
    // Without this, clap does not know the names of values.
    root.build();
    let (path, command) = named(&root, arguments.get(1..).unwrap_or_default());
    let mut tips = Vec::new();
    match error.kind() {
        ErrorKind::MissingRequiredArgument => {
            let missing = texts(&error, ContextKind::InvalidArg);
            tips.extend(missing.iter().filter_map(|missing| described(command, missing)));
            tips.extend(example(command, ""));
        }
        ErrorKind::InvalidValue if texts(&error, ContextKind::InvalidValue) == [""] => {
            for argument in texts(&error, ContextKind::InvalidArg) {
                tips.extend(described(command, &argument));
                tips.extend(example(command, argument.split(' ').next().unwrap_or_default()));
            }
        }
        ErrorKind::InvalidSubcommand if error.get(ContextKind::SuggestedSubcommand).is_none() => {
            let names: Vec<&str> =
                command.get_subcommands().map(Command::get_name).filter(|name| *name != "help").collect();
            tips.push(format!("the subcommands of `{path}` are: {}", names.join(", ")));
        }
        ErrorKind::UnknownArgument if error.get(ContextKind::SuggestedArg).is_none() => {
            let unknown = texts(&error, ContextKind::InvalidArg).pop().unwrap_or_default();
            error.remove(ContextKind::Suggested);
            tips.extend(misplaced(&path, command, &unknown).or_else(|| example(command, "")));
        }
        _ => {}
    }
    if !tips.is_empty() {
        let tips = tips.into_iter().map(StyledStr::from).collect();
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(tips));
    }
    error
}

/// The subcommand that the arguments name, and how it is called.
fn named<'c>(root: &'c Command, arguments: &[OsString]) -> (String, &'c Command) {
    let mut found = (root.get_name().to_owned(), root);
    for argument in arguments {
        let Some(next) = found.1.find_subcommand(argument) else { break };
        found = (format!("{} {}", found.0, next.get_name()), next);
    }
    found
}

/// The texts that clap's error has of this kind.
fn texts(error: &Error, kind: ContextKind) -> Vec<String> {
    match error.get(kind) {
        Some(ContextValue::String(text)) => vec![text.clone()],
        Some(ContextValue::Strings(texts)) => texts.clone(),
        _ => Vec::new(),
    }
}

/// What an argument is, such as `--for <PLATFORM>`: the first line of its help.
fn described(command: &Command, argument: &str) -> Option<String> {
    let found = command.get_arguments().find(|known| known.to_string() == argument)?;
    let help = found.get_help()?.to_string();
    Some(format!("{argument}: {}", help.lines().next()?))
}

/// The first example of the command's help that contains `part`.
fn example(command: &Command, part: &str) -> Option<String> {
    let help = command.get_after_help()?.to_string().replace("\\\n", " ");
    let mut examples = help.lines().skip_while(|line| !line.starts_with("Example")).skip(1);
    let example = examples.find(|line| line.contains("penstock") && line.contains(part))?;
    Some(format!("an example: {}", example.split_whitespace().collect::<Vec<_>>().join(" ")))
}

/// Where an argument belongs that the command does not have: a URL after its option, an option after its subcommand.
fn misplaced(path: &str, command: &Command, unknown: &str) -> Option<String> {
    let has = |command: &Command, option: &str| command.get_arguments().any(|known| is(known, option));
    if unknown.contains("://") && has(command, "--url") {
        return Some(format!("a URL follows its option: --url {unknown}"));
    }
    let with: Vec<&str> =
        command.get_subcommands().filter(|sub| has(sub, unknown)).map(Command::get_name).take(3).collect();
    let first = with.first()?;
    Some(format!("an option follows its subcommand: {path} {first} {unknown}"))
}

/// Whether this is the option, such as `--url` or `-H`.
fn is(known: &Arg, option: &str) -> bool {
    let long = option.strip_prefix("--").is_some_and(|name| known.get_long() == Some(name));
    let short = option.strip_prefix('-').and_then(|name| name.chars().next());
    long || (!option.starts_with("--") && short.is_some() && known.get_short() == short)
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;
    use crate::command::Cli;

    /// The message for these arguments.
    fn said(arguments: &[&str]) -> String {
        let arguments: Vec<OsString> = ["penstock"].iter().chain(arguments).map(OsString::from).collect();
        let error = Cli::try_parse_from(&arguments).unwrap_err();
        with_tips(error, Cli::command(), &arguments).to_string()
    }

    #[test]
    fn a_missing_argument_is_described_with_an_example() {
        let text = said(&["render", "policy.yaml"]);
        assert!(text.contains("tip: --for <PLATFORM>: "), "{text}");
        assert!(text.contains("tip: an example: penstock render policy.yaml --for istio --namespace"), "{text}");
        assert!(!text.contains('\\'), "{text}");
        let text = said(&["set-weight"]);
        for argument in ["<KIND>: ", "<NAMESPACE/NAME>: ", "<CANARY>: ", "<VARIANT=PERCENT>...: "] {
            assert!(text.contains(&format!("tip: {argument}")), "{argument} in {text}");
        }
        assert!(
            said(&["explain", "policy.yaml"]).contains("tip: an example: penstock explain policy.yaml --url https://")
        );
    }

    #[test]
    fn a_missing_value_is_described() {
        let text = said(&["dash", "--envoy"]);
        assert!(text.contains("tip: --envoy <[CLUSTER=]URL>: "), "{text}");
        assert!(text.contains("tip: an example: penstock dash --envoy http://127.0.0.1:9901"), "{text}");
        assert!(said(&["check", "--module"]).contains("tip: --module <MODULE>: "));
    }

    #[test]
    fn an_unknown_subcommand_is_answered_with_the_known_ones() {
        assert!(said(&["image", "foo"]).contains("the subcommands of `penstock image` are: build, push, place, sbom"));
        assert!(said(&["zzz"]).contains("the subcommands of `penstock` are: check, "));
        assert!(said(&["validat"]).contains("validate"));
    }

    #[test]
    fn an_argument_in_the_wrong_place_is_put_right() {
        assert!(said(&["explain", "p.yaml", "http://a/"]).contains("a URL follows its option: --url http://a/"));
        let text = said(&["--from-cluster"]);
        assert!(text.contains("an option follows its subcommand: penstock check --from-cluster"), "{text}");
        assert!(said(&["version", "x"]).contains("an example: penstock version"));
        let text = said(&["man", "--foo"]);
        assert!(text.contains("an example: penstock man") && !text.contains("-- --foo"), "{text}");
    }

    #[test]
    fn every_command_that_needs_arguments_has_an_example() {
        fn visit(path: &str, command: &Command, without: &mut Vec<String>) {
            let needs = command.get_arguments().any(Arg::is_required_set);
            if needs && example(command, "").is_none() {
                without.push(path.to_owned());
            }
            command.get_subcommands().for_each(|sub| visit(&format!("{path} {}", sub.get_name()), sub, without));
        }
        let mut without = Vec::new();
        let mut root = Cli::command();
        root.build();
        visit("penstock", &root, &mut without);
        assert_eq!(without, Vec::<String>::new());
    }
}
