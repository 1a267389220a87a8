//! Filters as public Rust filters are written: on the proxy-wasm SDK, one job each, a header fetched when it is needed,
//! configuration read by serde. Written for the comparison from what such filters document, not copied from any.
//!
//! The plugin configuration is `{"job": "empty" | "rate-limit" | "ab" | "denylist", …}`.

mod ab;
mod denylist;
mod rate_limit;

use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{ContextType, LogLevel};
use serde::Deserialize;

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| Box::new(Root { job: Rc::new(Job::Empty) }));
}}

#[derive(Deserialize)]
#[serde(tag = "job", rename_all = "kebab-case")]
enum Job {
    Empty,
    RateLimit(rate_limit::Settings),
    Ab(ab::Settings),
    Denylist(denylist::Settings),
}

struct Root {
    job: Rc<Job>,
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, _size: usize) -> bool {
        match serde_json::from_slice(&self.get_plugin_configuration().unwrap_or_default()) {
            Ok(job) => {
                self.job = Rc::new(job);
                true
            }
            Err(error) => {
                log::error!("{error}");
                false
            }
        }
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, _context_id: u32) -> Option<Box<dyn HttpContext>> {
        Some(match *self.job {
            Job::Empty => Box::new(Empty),
            Job::RateLimit(_) => Box::new(rate_limit::Filter { job: Rc::clone(&self.job), remaining: 0 }),
            Job::Ab(_) => Box::new(ab::Filter { job: Rc::clone(&self.job) }),
            Job::Denylist(_) => Box::new(denylist::Filter { job: Rc::clone(&self.job) }),
        })
    }
}

/// Does nothing.
struct Empty;

impl Context for Empty {}

impl HttpContext for Empty {}
