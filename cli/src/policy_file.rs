//! A policy file, read and compiled for a subcommand that runs it.

use std::fmt;
use std::path::Path;

use annotate_snippets::Level;
use penstock_policy::document::Node;
use penstock_policy::{Policy, Problem};

use crate::diagnostics::Finding;
use crate::output::count;
use crate::source;
use crate::yaml::Located;

/// A policy that compiles, with the tree that it comes from.
#[derive(Debug)]
pub struct PolicyFile {
    /// Ready to decide.
    pub policy: Policy,
    /// As written.
    pub node: Node,
}

/// The answer is no, exit status 1: a document that is not valid. Displays as the report of all its problems, with
/// styles.
#[derive(Debug)]
pub struct Invalid(pub String);

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Invalid {}

impl PolicyFile {
    /// Reads and compiles a file; `-` is standard input.
    ///
    /// # Errors
    /// When it cannot be read; [`Invalid`] when it is no policy.
    pub fn load(path: &Path) -> anyhow::Result<PolicyFile> {
        let text = source::read_text(path)?;
        PolicyFile::compile(&text).map_err(|findings| Invalid::new(&source::display(path), &text, &findings).into())
    }

    /// Compiles the text of a policy.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn compile(text: &str) -> Result<PolicyFile, Vec<Finding>> {
        let located = Located::read(text).map_err(|error| vec![Finding::syntax(&error, text)])?;
        match Policy::from_node(&located.node) {
            Ok(policy) => Ok(PolicyFile { policy, node: located.node }),
            Err(problems) => {
                let find = |problem: &Problem| Finding::of(problem, &located, text);
                Err(problems.as_slice().iter().map(find).collect())
            }
        }
    }
}

impl Invalid {
    /// The report on a file with these problems.
    pub fn new(file: &str, text: &str, findings: &[Finding]) -> Invalid {
        let mut report = String::new();
        for finding in findings {
            report += &finding.render(Level::ERROR, file, text);
            report += "\n\n";
        }
        report += &format!("{file}: invalid, {}", count(findings.len(), "error"));
        Invalid(report)
    }
}
