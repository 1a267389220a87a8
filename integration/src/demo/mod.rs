//! `make demo`: shows what the suite does, with real requests through a real Envoy.
//!
//! Each section of the policy has a file here, with its policy, its listener, and a walk that sends requests and checks
//! the responses. To add a section, write a file like `routes.rs` and add it to `SECTIONS`.

mod canaries;
mod egress;
pub mod json;
mod limits;
mod live;
mod routes;
mod screen;
mod section;
mod stage;
mod visitors;

use std::fs;
use std::sync::mpsc;

use anyhow::{Context, Result};

use crate::listener::Listener;
use crate::{Bootstrap, RateLimitService, WasmFilter};
use section::{DemoSection, folder};
use stage::Stage;

/// Every section, in the order in which they are shown.
static SECTIONS: [DemoSection; 4] = [routes::SECTION, canaries::SECTION, limits::SECTION, egress::SECTION];

/// Options of the demo.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DemoOptions {
    /// Ends after the walk instead of serving until Ctrl-C.
    pub once: bool,
}

/// Runs the demo; returns whether every response was as expected.
pub fn run(options: DemoOptions) -> Result<bool> {
    let (interrupt, interrupted) = mpsc::channel();
    ctrlc::set_handler(move || {
        // The receiver lives as long as the demo.
        let _ = interrupt.send(());
    })?;
    let service = limits::service()?;
    let mut stage = Stage::new(start(service.as_ref())?, service, interrupted);
    stage.introduce()?;
    for (number, section) in SECTIONS.iter().enumerate() {
        stage.open(number + 1, section.name, section.title, &section.file());
        (section.walk)(&mut stage)?;
    }
    let right = stage.conclude();
    if !options.once {
        live::serve(stage, &SECTIONS)?;
    }
    Ok(right)
}

/// An Envoy with a listener for each section, and a cluster for the rate-limit service if there is one.
fn start(service: Option<&RateLimitService>) -> Result<crate::Envoy> {
    fs::create_dir_all(folder()).context("cannot make target/demo")?;
    let mut bootstrap = Bootstrap::new()?.stats_tags()?;
    if let Some(service) = service {
        bootstrap = bootstrap.any_cluster(service.cluster("ratelimit"));
    }
    for section in &SECTIONS {
        fs::write(section.file(), section.policy)?;
        let filter = WasmFilter::new("suite", json::of_yaml(section.policy)?)?.named(section.name);
        let filter = bootstrap.discovered(filter)?;
        bootstrap = bootstrap.listener((section.routes)(Listener::new(section.name).discovered(filter)));
    }
    bootstrap.start()
}
