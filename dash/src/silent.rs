//! Tells on the terminal which sources give nothing: whoever starts the dash looks there before they open the page.

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use anyhow::Result;

use crate::feed::{self, SharedFeed};
use crate::scrape;

/// A source that does not answer at first may just be starting.
const PATIENCE: Duration = Duration::from_secs(3);

/// How often it is looked at later.
const PAUSE: Duration = Duration::from_secs(60);

/// Prints a line for whoever started the dash.
pub type Warn = fn(&str);

/// Warns of each source that gives nothing: soon after the start, and each minute of those that have failed since.
pub fn start(fleet: &scrape::Shared, feed: &SharedFeed, warn: Warn) -> Result<()> {
    let (fleet, feed) = (fleet.clone(), feed.clone());
    thread::Builder::new().name("silent".to_owned()).spawn(move || {
        let mut told = BTreeSet::new();
        thread::sleep(PATIENCE);
        loop {
            let messages = messages(&fleet, &feed);
            messages.difference(&told).for_each(|message| warn(message));
            told = messages;
            thread::sleep(PAUSE);
        }
    })?;
    Ok(())
}

/// What is wrong with each source now, and what would be right.
fn messages(fleet: &scrape::Shared, feed: &SharedFeed) -> BTreeSet<String> {
    let mut messages = BTreeSet::new();
    let names: Vec<String> = scrape::lock(fleet).names().map(str::to_owned).collect();
    for name in names {
        let fleet = scrape::lock(fleet);
        for (_, endpoint) in fleet.cluster(&name).into_iter().flat_map(|cluster| cluster.endpoints()) {
            if let Some(error) = &endpoint.error {
                messages.insert(format!(
                    "{} gives nothing: {error}. Is it running, and is this the admin interface of an Envoy (`admin.address` in its bootstrap), \
                     or a Prometheus? It is asked again all the time",
                    endpoint.url
                ));
            }
        }
        drop(fleet);
        let feed = feed::lock(feed);
        for source in feed.cluster(&name).into_iter().flat_map(|cluster| cluster.sources()) {
            let error = source.error.lock().ok().and_then(|error| error.clone());
            messages.extend(error.map(|error| {
                format!(
                    "{} gives nothing: {error}. Give the file to which Envoy writes its access log; it is read as soon as it is there",
                    source.name
                )
            }));
        }
    }
    messages
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::fleet::Fleet;

    #[test]
    fn sources_that_give_nothing_are_named_with_what_would_be_right() {
        let fleet = Arc::new(Mutex::new(Fleet::default()));
        let feed = SharedFeed::default();
        scrape::lock(&fleet).add("east", "127.0.0.1:9", "http://127.0.0.1:9");
        let source = feed::lock(&feed).add_source("east", "access log", "/nosuch.log");
        assert!(messages(&fleet, &feed).is_empty());
        scrape::lock(&fleet).fail("east", "127.0.0.1:9", "connection refused".to_owned());
        *source.error.lock().unwrap() = Some("No such file or directory".to_owned());
        let found: Vec<String> = messages(&fleet, &feed).into_iter().collect();
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(
            found[0].starts_with("access log /nosuch.log gives nothing: No such file or directory. Give"),
            "{found:?}"
        );
        assert!(
            found[1].starts_with("http://127.0.0.1:9 gives nothing: connection refused. Is it running"),
            "{found:?}"
        );
    }
}
