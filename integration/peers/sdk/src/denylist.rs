//! Hosts and client addresses that may not pass.

use std::collections::HashSet;
use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;
use serde::Deserialize;

use crate::Job;

#[derive(Deserialize)]
pub struct Settings {
    hosts: HashSet<String>,
    addresses: HashSet<String>,
}

pub struct Filter {
    pub job: Rc<Job>,
}

impl Context for Filter {}

impl HttpContext for Filter {
    fn on_http_request_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        let Job::Denylist(settings) = &*self.job else { return Action::Continue };
        let host = self.get_http_request_header(":authority").unwrap_or_default().to_lowercase();
        let address = self.get_property(vec!["source", "address"]).unwrap_or_default();
        let address = String::from_utf8_lossy(&address);
        let address = address.rsplit_once(':').map_or(&*address, |(address, _)| address);
        if settings.hosts.contains(&host) || settings.addresses.contains(address) {
            self.send_http_response(403, vec![], Some(b"denied\n"));
            return Action::Pause;
        }
        Action::Continue
    }
}
