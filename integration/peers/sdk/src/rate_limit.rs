//! A fixed window for each client, counted in shared data, with the quota headers of the first draft.

use std::rc::Rc;
use std::time::UNIX_EPOCH;

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::{Action, Status};
use serde::Deserialize;

use crate::Job;

#[derive(Deserialize)]
pub struct Settings {
    header: String,
    limit: u64,
    window_seconds: u64,
}

pub struct Filter {
    pub job: Rc<Job>,
    pub remaining: u64,
}

impl Context for Filter {}

impl HttpContext for Filter {
    fn on_http_request_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        let job = Rc::clone(&self.job);
        let Job::RateLimit(settings) = &*job else { return Action::Continue };
        let client = self.get_http_request_header(&settings.header).unwrap_or_default();
        let seconds = self.get_current_time().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        let key = format!("ratelimit:{client}:{}", seconds / settings.window_seconds);
        loop {
            let (value, version) = self.get_shared_data(&key);
            let used = value.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes);
            if used >= settings.limit {
                self.send_http_response(429, vec![("x-ratelimit-remaining", "0")], Some(b"slow down\n"));
                return Action::Pause;
            }
            match self.set_shared_data(&key, Some(&(used + 1).to_le_bytes()), version) {
                Err(Status::CasMismatch) => {}
                _ => {
                    self.remaining = settings.limit - used - 1;
                    return Action::Continue;
                }
            }
        }
    }

    fn on_http_response_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        self.set_http_response_header("x-ratelimit-remaining", Some(&self.remaining.to_string()));
        Action::Continue
    }
}
