//! After the walk, Envoy keeps running for the user and reloads the policy files when they change.

use std::collections::BTreeMap;
use std::fs;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use anyhow::{Result, bail};

use super::json;
use super::screen::TextStyle;
use super::section::DemoSection;
use super::stage::{Stage, relative};
use super::visitors::Visitors;
use crate::discovery::Reload;

/// The polling interval for the files.
const TICK: Duration = Duration::from_millis(250);

/// Serves until Ctrl-C.
pub(super) fn serve(mut stage: Stage, sections: &[DemoSection]) -> Result<()> {
    stage.screen.title("Envoy stays up until Ctrl-C. Try:");
    stage.screen.line("");
    for section in sections {
        let url = format!("http://{}", stage.envoy.address(section.name)?);
        for arguments in section.try_it {
            stage.screen.line(&format!("  curl -i {}", arguments.replace("{url}", &url)));
        }
    }
    stage.screen.title("Edit a policy; a saved change is live at once:");
    stage.screen.line("");
    for section in sections {
        stage.screen.line(&format!("  {}  {}", relative(&section.file()), section.edit_it));
    }
    stage.screen.line("");
    let admin = format!("Envoy's admin page: http://{}  its log: {}", stage.envoy.admin().address(), log(&stage));
    stage.screen.line(&stage.screen.paint(TextStyle::Dim, &admin));
    let dash = format!("  dist/penstock dash --envoy demo=http://{}", stage.envoy.admin().address());
    stage.screen.title("See it live in the browser:");
    stage.screen.line("");
    stage.screen.line(&dash);
    stage.screen.line("");
    stage.screen.line(&stage.screen.paint(TextStyle::Dim, "Visitors keep coming, some 15 a second in each section."));
    stage.screen.line("");

    let _visitors = Visitors::start(&stage.envoy, sections)?;
    let mut known: BTreeMap<&str, String> =
        sections.iter().map(|section| (section.name, section.policy.to_owned())).collect();
    while let Err(RecvTimeoutError::Timeout) = stage.interrupted.recv_timeout(TICK) {
        if !stage.envoy.is_running()? {
            // Ctrl-C in a terminal reaches Envoy as well, possibly before this process.
            match stage.interrupted.recv_timeout(TICK) {
                Err(RecvTimeoutError::Timeout) => bail!("Envoy ended by itself; its log:\n{}", stage.envoy.log()?),
                _ => break,
            }
        }
        for section in sections {
            // Some editors delete the file for a moment when they save it.
            let Some(text) = read(section) else { continue };
            if known.get(section.name) != Some(&text) {
                apply(&mut stage, section, &text)?;
                known.insert(section.name, text);
            }
        }
    }
    stage.screen.line("");
    Ok(())
}

/// Reloads the policy from the file and prints the result in one line.
fn apply(stage: &mut Stage, section: &DemoSection, text: &str) -> Result<()> {
    let file = relative(&section.file());
    let outcome = match json::of_yaml(text) {
        Ok(policy) => stage.envoy.reload(section.name, policy)?,
        Err(error) => Reload::Refused(error.to_string()),
    };
    let line = match &outcome {
        Reload::Taken => format!("{} {file}: taken, every worker runs it", stage.screen.paint(TextStyle::Good, "✓")),
        Reload::Refused(_) => {
            let why = outcome.reasons().join("; ");
            format!("{} {file}: refused, the old policy keeps serving: {why}", stage.screen.paint(TextStyle::Bad, "✗"))
        }
    };
    stage.screen.line(&line);
    Ok(())
}

fn read(section: &DemoSection) -> Option<String> {
    fs::read_to_string(section.file()).ok().filter(|text| !text.is_empty())
}

fn log(stage: &Stage) -> String {
    stage.envoy.folder().join("envoy.log").display().to_string()
}
