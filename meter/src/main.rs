//! `make meter` and `make meter-update`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use penstock_meter::{Budget, scenarios};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dist = std::env::var_os("PENSTOCK_DIST").map_or_else(|| root.join("../dist"), PathBuf::from);
    let file = root.join("budget.json");
    match std::env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [] => {}
        [flag] if flag == "--update" => {
            std::fs::write(&file, scenarios::measure(&dist, "")?.to_json()?)?;
            println!("{} holds what was measured", file.display());
            return Ok(());
        }
        [flag, part] if flag == "--update" => {
            let mut budget = Budget::from_json(&std::fs::read_to_string(&file)?)?;
            budget.0.extend(scenarios::measure(&dist, part)?.0);
            std::fs::write(&file, budget.to_json()?)?;
            println!("{} holds what was measured of {part:?}", file.display());
            return Ok(());
        }
        [flag] if flag == "--large" => {
            print!("{}", scenarios::measure_large(&dist)?.to_json()?);
            return Ok(());
        }
        [flag, name] if flag == "--profile" => {
            for line in scenarios::profile(name, &dist)?.lines() {
                println!("{line}");
            }
            return Ok(());
        }
        _ => bail!("usage: penstock-meter [--update [PART-OF-NAME] | --large | --profile SCENARIO]"),
    }
    let measured = scenarios::measure(&dist, "")?;
    let text = std::fs::read_to_string(&file).context("there is no meter/budget.json; write it: make meter-update")?;
    let verdict = Budget::from_json(&text)?.judge(&measured);
    for line in &verdict.better {
        println!("better: {line}");
    }
    for line in &verdict.wrong {
        println!("WORSE: {line}");
    }
    if !verdict.wrong.is_empty() {
        bail!("the modules cost more than meter/budget.json allows (above); if that is worth it: make meter-update");
    }
    if !verdict.better.is_empty() {
        println!("the budget may shrink: make meter-update");
    }
    println!("{} scenarios are within their budgets", measured.0.len());
    Ok(())
}
