//! What `penstock check` says of a `capability_restriction_config`, against what the built modules import and export.

use std::fs;

use anyhow::{Context, Result, ensure};
use penstock::check::{self, CheckContext};
use penstock::inputs::InputFile;
use penstock::text::SourceText;
use penstock_integration::workspace;
use wasmparser::{Parser, Payload, TypeRef};

use crate::envoy::bootstrap;

/// Calls that a module does not need for a decision: what starts or ends it, and what only its messages need.
const NOT_NEEDED: [&str; 6] =
    ["environ_get", "environ_sizes_get", "fd_write", "proc_exit", "proxy_get_log_level", "proxy_on_memory_allocate"];

/// The names of the calls between Envoy and a module, those that it imports and those that it exports.
fn calls(module: &str) -> Result<Vec<String>> {
    let bytes = fs::read(workspace::module(module)?)?;
    let mut calls = Vec::new();
    for payload in Parser::new(0).parse_all(&bytes) {
        match payload? {
            Payload::ImportSection(imports) => {
                for import in imports {
                    let import = import?;
                    calls.extend(matches!(import.ty, TypeRef::Func(_)).then(|| import.name.to_owned()));
                }
            }
            Payload::ExportSection(exports) => {
                for export in exports {
                    let name = export?.name;
                    calls.extend(name.starts_with("proxy_on_").then(|| name.to_owned()));
                }
            }
            _ => {}
        }
    }
    Ok(calls)
}

/// What `check` says of a list of capabilities, an error or a warning.
fn said(module: &str, allowed: &[&str]) -> Result<Option<String>> {
    const NAME: &str = "                name: penstock\n";
    let list: Vec<String> = allowed.iter().map(|name| format!("{name}: {{}}")).collect();
    let restriction = format!(
        "{NAME}                capability_restriction_config: {{allowed_capabilities: {{{}}}}}\n",
        list.join(", ")
    );
    let text = bootstrap("\"@type\": type.googleapis.com/google.protobuf.StringValue\nvalue: '{}'")?;
    let text = text.replacen(NAME, &restriction, 1).replace("suite.wasm", &format!("{module}.wasm"));
    ensure!(text.contains(&restriction) && text.contains(&format!("{module}.wasm")), "{text}");
    let input = InputFile { name: "bootstrap.yaml".to_owned(), text: SourceText::new(text), is_found: false };
    let reports = check::check(&[input], &CheckContext::default())?;
    let report = reports.first().context("no report")?;
    let mut findings = report.errors.shown.iter().chain(&report.warnings.shown);
    Ok(findings.find(|finding| finding.path.ends_with("allowed_capabilities")).map(|finding| finding.message.clone()))
}

#[test]
fn check_knows_the_calls_that_each_module_needs() -> Result<()> {
    for module in ["header-routing", "canary", "rate-limit", "egress-allowlist", "suite"] {
        let calls = calls(module)?;
        let needed: Vec<&str> = calls.iter().map(String::as_str).filter(|call| !NOT_NEEDED.contains(call)).collect();
        ensure!(needed.len() > 20, "{module}: {needed:?}");
        ensure!(said(module, &needed)?.is_none(), "{module} with all of its calls: {:?}", said(module, &needed)?);
        for missing in &needed {
            let others: Vec<&str> = needed.iter().copied().filter(|call| call != missing).collect();
            let message =
                said(module, &others)?.with_context(|| format!("{module} without {missing}: nothing said"))?;
            ensure!(message.contains(&format!("`{missing}`")), "{module} without {missing}: {message}");
        }
    }
    Ok(())
}
