//! Shows which functions of a module execute the instructions of a scenario. The module needs a name section: `make
//! profile` builds such a module.

use std::path::Path;

use anyhow::{Context, Result};
use wasmparser::{KnownCustom, Name, Parser, Payload};

/// Functions with the instructions that each executes for one request.
#[derive(Debug, Default)]
pub struct Profile(pub Vec<(String, f64)>);

impl Profile {
    /// Formats the functions, most instructions first, one a line.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        let all: f64 = self.0.iter().map(|(_, count)| count).sum();
        self.0.iter().filter(|(_, count)| *count > 0.0).map(move |(name, count)| {
            let share = count / all * 100.0;
            format!("{count:10.1} {share:5.1} %  {name}")
        })
    }
}

/// The names of a module's function bodies in order; their numbers where it has no names.
pub(crate) fn names(module: &Path) -> Result<Vec<String>> {
    let bytes = std::fs::read(module).with_context(|| module.display().to_string())?;
    let (mut imported, mut bodies, mut named) = (0, 0, Vec::new());
    for payload in Parser::new(0).parse_all(&bytes) {
        match payload? {
            Payload::ImportSection(imports) => imported = imports.count(),
            Payload::CodeSectionStart { count, .. } => bodies = count,
            Payload::CustomSection(section) => {
                let KnownCustom::Name(names) = section.as_known() else { continue };
                for part in names {
                    if let Name::Function(functions) = part? {
                        for function in functions {
                            let function = function?;
                            named.push((function.index, function.name.to_owned()));
                        }
                    }
                }
            }
            _ => {}
        }
    }
    let mut names: Vec<String> = (0..bodies).map(|number| format!("function {number}")).collect();
    for (index, name) in named {
        if let Some(place) = index.checked_sub(imported).and_then(|body| names.get_mut(body as usize)) {
            *place = name;
        }
    }
    Ok(names)
}
