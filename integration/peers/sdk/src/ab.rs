//! A split by a hash of the user, told to the host in a header.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;
use serde::Deserialize;

use crate::Job;

#[derive(Deserialize)]
pub struct Settings {
    header: String,
    percent: u64,
}

pub struct Filter {
    pub job: Rc<Job>,
}

impl Context for Filter {}

impl HttpContext for Filter {
    fn on_http_request_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        let Job::Ab(settings) = &*self.job else { return Action::Continue };
        let user = self.get_http_request_header(&settings.header).unwrap_or_default();
        let mut hasher = DefaultHasher::new();
        user.hash(&mut hasher);
        let variant = if hasher.finish() % 100 < settings.percent { "v2" } else { "v1" };
        self.set_http_request_header("x-penstock-route", Some(variant));
        Action::Continue
    }
}
