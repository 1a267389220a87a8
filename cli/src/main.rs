//! `penstock`: see what a policy does before it ships.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::anyhow;
use clap::{Parser, Subcommand};
use penstock::{check, replay, source, yaml::Located};
use penstock_policy::{Module, Policy};

/// Check and replay Penstock policies: the same engine as in the proxy.
#[derive(Debug, Parser)]
#[command(version, after_help = "Exit status: 0 fine, 1 the answer is no (an invalid policy), 2 usage or I/O.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say everything that is wrong with a policy.
    #[command(after_help = "Examples:\n  penstock check policy.yaml\n  penstock check --format json a.yaml b.yaml\n  \
        penstock check --module header-routing - < policy.yaml")]
    Check {
        /// Policy files, YAML or JSON; `-` is standard input.
        #[arg(required = true)]
        policies: Vec<PathBuf>,
        /// The form of the report.
        #[arg(long, value_enum, default_value = "human")]
        format: check::Format,
        /// The module that will run the policy; it refuses sections of others.
        #[arg(long, value_parser = module, default_value = "suite")]
        module: Module,
    },
    /// Decide recorded requests, one JSON object a line, and print one JSON decision a line.
    #[command(
        after_help = "Example:\n  echo '{\"method\":\"GET\",\"authority\":\"shop.example.com\",\"path\":\"/\"}' | \
        penstock replay policy.yaml"
    )]
    Replay {
        /// The policy, YAML or JSON.
        policy: PathBuf,
        /// The requests; `-`, the default, is standard input.
        #[arg(default_value = "-")]
        requests: PathBuf,
    },
}

fn module(name: &str) -> Result<Module, String> {
    let names: Vec<&str> = Module::ALL.iter().map(|module| module.name()).collect();
    let found = Module::ALL.into_iter().find(|module| module.name() == name);
    found.ok_or_else(|| format!("the modules are {}", names.join(", ")))
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        // The reader of a pipe has gone (`| head`): nothing is wrong.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to do when standard error is gone too.
            let _ = writeln!(io::stderr(), "penstock: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// `false`: the answer is no.
fn run(cli: Cli) -> anyhow::Result<bool> {
    let stdout = io::stdout();
    let color = stdout.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let mut out = BufWriter::with_capacity(1 << 16, stdout.lock());
    let answer = match cli.command {
        Command::Check { policies, format, module } => check::run(&policies, module, format, color, &mut out)?,
        Command::Replay { policy, requests } => match load(&policy)? {
            Some(policy) => replay::run(&policy, &requests, &mut out)?,
            None => {
                check::run(&[policy], Module::Suite, check::Format::Human, false, &mut io::stderr())?;
                false
            }
        },
    };
    out.flush()?;
    Ok(answer)
}

/// The compiled policy of a file; `None` when it is invalid.
fn load(path: &Path) -> anyhow::Result<Option<Policy>> {
    if path == Path::new("-") {
        return Err(anyhow!("the policy must be a file: standard input is for the requests"));
    }
    let text = source::read_text(path)?;
    Ok(Located::read(&text).ok().and_then(|located| Policy::from_node(&located.node).ok()))
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| match cause.downcast_ref::<io::Error>() {
        Some(error) => error.kind() == io::ErrorKind::BrokenPipe,
        None => {
            cause.downcast_ref::<serde_json::Error>().and_then(serde_json::Error::io_error_kind)
                == Some(io::ErrorKind::BrokenPipe)
        }
    })
}
