//! The ceilings by name: policy files in a folder, such as a mounted ConfigMap.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use anyhow::{Result, bail};

use crate::diagnostics::{Finding, Findings};
use crate::manifests::ManifestFile;
use crate::policy_file::Invalid;
use crate::source::{self, unreadable};
use crate::text::SourceText;
use crate::within::Ceiling;

/// The current ceilings.
#[derive(Debug, Default)]
pub struct Ceilings {
    folder: Option<PathBuf>,
    /// The content of the files, with the parsed policies.
    read: RwLock<Read>,
}

#[derive(Debug, Default)]
struct Read {
    texts: BTreeMap<String, String>,
    ceilings: BTreeMap<String, Arc<Ceiling>>,
}

impl Ceilings {
    /// Reads a folder.
    ///
    /// # Errors
    /// Returns an error when a file cannot be read or is not a valid policy.
    pub fn load(folder: &Path) -> Result<Ceilings> {
        let texts = texts(folder)?;
        let ceilings = compile(&texts)?;
        Ok(Ceilings { folder: Some(folder.to_owned()), read: RwLock::new(Read { texts, ceilings }) })
    }

    /// Reads the folder again; returns `true` when something has changed.
    ///
    /// # Errors
    /// Returns an error when a file is invalid; then the previous ceilings stay in use.
    pub fn reload(&self) -> Result<bool> {
        let Some(folder) = &self.folder else { return Ok(false) };
        let texts = texts(folder)?;
        if self.read.read().unwrap_or_else(PoisonError::into_inner).texts == texts {
            return Ok(false);
        }
        let ceilings = compile(&texts)?;
        *self.read.write().unwrap_or_else(PoisonError::into_inner) = Read { texts, ceilings };
        Ok(true)
    }

    /// The ceiling `name`.
    pub fn get(&self, name: &str) -> Option<Arc<Ceiling>> {
        self.read.read().unwrap_or_else(PoisonError::into_inner).ceilings.get(name).cloned()
    }

    /// The number of ceilings.
    pub fn count(&self) -> usize {
        self.read.read().unwrap_or_else(PoisonError::into_inner).ceilings.len()
    }
}

/// The files by name, without `.yaml`. Kubernetes keeps the versions of a ConfigMap in folders whose names start with
/// two dots.
fn texts(folder: &Path) -> Result<BTreeMap<String, String>> {
    let mut texts = BTreeMap::new();
    let entries = std::fs::read_dir(folder).map_err(|error| unreadable("cannot read", folder, &error))?;
    for entry in entries {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()).filter(|name| !name.starts_with('.')) else {
            continue;
        };
        let name = [".yaml", ".yml", ".json"].iter().find_map(|end| name.strip_suffix(end));
        if let Some(name) = name {
            texts.insert(name.to_owned(), source::read_text(&path)?);
        }
    }
    Ok(texts)
}

fn compile(texts: &BTreeMap<String, String>) -> Result<BTreeMap<String, Arc<Ceiling>>> {
    texts.iter().map(|(name, text)| Ok((name.clone(), Arc::new(ceiling(name, text)?)))).collect()
}

fn ceiling(name: &str, text: &str) -> Result<Ceiling> {
    let text = SourceText::from(text);
    let file = ManifestFile::read_as(name, text.clone(), false)
        .map_err(|error| Invalid::new(name, &text, &Findings::one(Finding::syntax(&error, &text))))?;
    let [found] = file.policies.as_slice() else { bail!("the ceiling {name} is not one policy") };
    if let Err(problems) = penstock_policy::check(&found.node, penstock_policy::Module::Suite) {
        let findings = Findings::of(&problems, |problem| file.finding(found, problem));
        return Err(Invalid::new(name, &text, &findings).into());
    }
    Ok(Ceiling::new(found.node.clone()).for_plugins())
}
