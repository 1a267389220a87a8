//! `penstock render`: prints complete manifests for a policy.

mod args;
mod envoy;
mod gateway;
mod istio;
mod kustomize;
mod names;
mod places;
mod plan;
mod service;
mod text;

use std::fs;
use std::io::Write;

use crate::output::Output;
use crate::policy_file::PolicyFile;
use crate::source;
pub use args::Args;
use args::RenderTarget;
use plan::Plan;
use text::RenderedFile;

impl Args {
    /// Prints or writes the manifests.
    ///
    /// # Errors
    /// Returns an error when the policy is invalid or does nothing, or the output cannot be written.
    pub fn run(&self, out: &mut Output<'_>) -> anyhow::Result<bool> {
        let policy = PolicyFile::load(&self.policy)?;
        let plan = Plan::new(self, &policy.node)?;
        self.check_default_port(&plan)?;
        let manifests = match self.target {
            RenderTarget::Envoy => vec![RenderedFile { file: "envoy.yaml", text: envoy::bootstrap(&plan) }],
            RenderTarget::Istio => istio::manifests(&plan, istio::PluginObject::WasmPlugin),
            RenderTarget::IstioTrafficextension => istio::manifests(&plan, istio::PluginObject::TrafficExtension),
            RenderTarget::EnvoyGateway => gateway::manifests(&plan)?,
            RenderTarget::Kustomize => kustomize::base(&plan),
        };
        match &self.output {
            Some(folder) => {
                fs::create_dir_all(folder).map_err(|error| source::unreadable("cannot make", folder, &error))?;
                for manifest in &manifests {
                    let path = folder.join(manifest.file);
                    source::write(&path, &manifest.text)?;
                    writeln!(out, "{}", path.display())?;
                }
            }
            None if self.target == RenderTarget::Kustomize => {
                anyhow::bail!("a kustomize base has several files: set their folder with --output DIR");
            }
            None => {
                let texts: Vec<&str> = manifests.iter().map(|manifest| manifest.text.as_str()).collect();
                out.write_all(texts.join("---\n").as_bytes())?;
            }
        }
        Ok(true)
    }
}

impl Args {
    /// Envoy's dynamic forward proxy supports two ports for an authority without one, and the policy must assume the
    /// same.
    fn check_default_port(&self, plan: &Plan<'_>) -> anyhow::Result<()> {
        let is_istio = matches!(self.target, RenderTarget::Istio | RenderTarget::IstioTrafficextension);
        anyhow::ensure!(
            plan.egress.is_none() || is_istio || matches!(plan.default_port, 443 | 80),
            "egress.defaultPort: {}: an authority without a port goes to 443 (with TLS) or 80 in what `render` makes; \
             write one of them, or list this port in `to` and let clients say it",
            plan.default_port
        );
        Ok(())
    }
}
