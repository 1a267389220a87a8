//! Stores a bounded number of decisions, and counts those that are not stored.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use super::decision::{AccessLogEntry, FeedPrivacy, LoggedDecision, LoggedOutcome};

/// The maximum number of stored refusals (including those that Audit or Shadow only report) for a cluster, at most 3
/// KiB each.
const MOST_REFUSALS: usize = 2_000;

/// The maximum number of other decisions, which are bounded separately so that they do not displace refusals.
const MOST_OTHERS: usize = 500;

/// The number of refusals a second, and in a burst, that are stored for a namespace. A namespace that floods the feed
/// must not displace the decisions of others.
const REFUSALS_PER_SECOND: f64 = 100.0;

/// The same for other decisions.
const OTHERS_PER_SECOND: f64 = 20.0;

/// The maximum number of namespaces; decisions of further ones are dropped.
const MOST_NAMESPACES: usize = 1_000;

/// State that all threads share.
pub type SharedFeed = Arc<Mutex<DecisionFeed>>;

/// Locks the feed. If a thread panicked while it held the lock (none should), the stored decisions are still complete.
pub fn lock(feed: &SharedFeed) -> MutexGuard<'_, DecisionFeed> {
    feed.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The decisions of all clusters.
#[derive(Debug, Default)]
pub struct DecisionFeed {
    privacy: FeedPrivacy,
    clusters: BTreeMap<String, ClusterFeed>,
    last: u64,
}

/// The decisions of one cluster.
#[derive(Debug, Default)]
pub struct ClusterFeed {
    refusals: VecDeque<LoggedDecision>,
    others: VecDeque<LoggedDecision>,
    namespaces: BTreeMap<Option<String>, NamespaceFeed>,
    /// The number of lines that are not requests, or are malformed; their namespace is unknown.
    unreadable: u64,
    sources: Vec<Arc<SourceState>>,
}

/// A source of decisions, and its state.
#[derive(Debug, Default)]
pub struct SourceState {
    /// The description, such as `gRPC access logs at 127.0.0.1:9912`.
    pub name: String,
    /// The description for viewers of some namespaces only: without addresses and files of this machine.
    pub kind: &'static str,
    /// The current problem, if any.
    pub error: Mutex<Option<String>>,
    /// The number of open streams or files.
    pub open: std::sync::atomic::AtomicUsize,
}

/// The counts of one namespace.
#[derive(Debug)]
struct NamespaceFeed {
    counts: FeedCounts,
    refusals: FeedBucket,
    others: FeedBucket,
}

/// Counts of requests in access logs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FeedCounts {
    /// All requests.
    pub received: u64,
    /// Requests that were dropped because of the rate bound.
    pub dropped: u64,
    /// The dropped refusals, including those that are only reported.
    pub dropped_refusals: u64,
    /// Requests that were stored and then displaced by newer ones.
    pub replaced: u64,
}

/// A rate bound: this many decisions a second, with a burst of the same number.
#[derive(Debug)]
struct FeedBucket {
    per_second: f64,
    left: f64,
    at: f64,
}

impl FeedBucket {
    fn full(per_second: f64, at: f64) -> FeedBucket {
        FeedBucket { per_second, left: per_second, at }
    }

    fn takes(&mut self, now: f64) -> bool {
        let passed = (now - self.at).max(0.0);
        self.left = (self.left + passed * self.per_second).min(self.per_second);
        self.at = now;
        let takes = self.left >= 1.0;
        if takes {
            self.left -= 1.0;
        }
        takes
    }
}

impl NamespaceFeed {
    fn new(now: f64) -> NamespaceFeed {
        NamespaceFeed {
            counts: FeedCounts::default(),
            refusals: FeedBucket::full(REFUSALS_PER_SECOND, now),
            others: FeedBucket::full(OTHERS_PER_SECOND, now),
        }
    }
}

/// The proxy that made a decision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoggingProxy {
    /// The proxy's name in the dash, or its node id.
    pub name: Option<String>,
    /// The proxy's namespace.
    pub namespace: Option<String>,
}

impl DecisionFeed {
    /// An empty feed.
    pub fn new(privacy: FeedPrivacy) -> DecisionFeed {
        DecisionFeed { privacy, ..DecisionFeed::default() }
    }

    /// Adds a source of a cluster.
    pub fn add_source(&mut self, cluster: &str, kind: &'static str, at: &str) -> Arc<SourceState> {
        let source = Arc::new(SourceState { name: format!("{kind} {at}"), kind, ..SourceState::default() });
        self.clusters.entry(cluster.to_owned()).or_default().sources.push(Arc::clone(&source));
        source
    }

    /// Stores a logged request, within the bounds.
    pub fn note(&mut self, cluster: &str, proxy: &LoggingProxy, logged: AccessLogEntry, now: f64) {
        let feed = self.clusters.entry(cluster.to_owned()).or_default();
        if feed.namespaces.len() >= MOST_NAMESPACES && !feed.namespaces.contains_key(&proxy.namespace) {
            feed.unreadable += 1;
            return;
        }
        let known = feed.namespaces.entry(proxy.namespace.clone()).or_insert_with(|| NamespaceFeed::new(now));
        known.counts.received += 1;
        let mut decision = LoggedDecision::of(logged, &self.privacy, now);
        let is_refusal = matches!(decision.outcome, LoggedOutcome::Refused | LoggedOutcome::HeldBack);
        let bucket = if is_refusal { &mut known.refusals } else { &mut known.others };
        if !bucket.takes(now) {
            known.counts.dropped += 1;
            known.counts.dropped_refusals += u64::from(is_refusal);
            return;
        }
        self.last += 1;
        decision.seq = self.last;
        decision.proxy.clone_from(&proxy.name);
        decision.namespace.clone_from(&proxy.namespace);
        let (ring, most) =
            if is_refusal { (&mut feed.refusals, MOST_REFUSALS) } else { (&mut feed.others, MOST_OTHERS) };
        if ring.len() >= most
            && let Some(oldest) = ring.pop_front()
            && let Some(namespace) = feed.namespaces.get_mut(&oldest.namespace)
        {
            namespace.counts.replaced += 1;
        }
        ring.push_back(decision);
    }

    /// Counts a line that is not a request, or is malformed.
    pub fn note_unreadable(&mut self, cluster: &str) {
        self.clusters.entry(cluster.to_owned()).or_default().unreadable += 1;
    }

    /// The decisions of a cluster; `None` when none of its access logs arrive here.
    pub fn cluster(&self, name: &str) -> Option<&ClusterFeed> {
        self.clusters.get(name)
    }
}

impl ClusterFeed {
    /// All decisions, newest first.
    pub fn newest(&self) -> impl Iterator<Item = &LoggedDecision> {
        let (mut refusals, mut others) = (self.refusals.iter().rev().peekable(), self.others.iter().rev().peekable());
        std::iter::from_fn(move || match (refusals.peek(), others.peek()) {
            (Some(refusal), Some(other)) if refusal.seq < other.seq => others.next(),
            (Some(_), _) => refusals.next(),
            (None, _) => others.next(),
        })
    }

    /// The counts of the namespaces that `may_see` accepts.
    pub fn counts(&self, may_see: impl Fn(Option<&str>) -> bool) -> FeedCounts {
        let visible = self.namespaces.iter().filter(|(namespace, _)| may_see(namespace.as_deref()));
        visible.fold(FeedCounts::default(), |sum, (_, namespace)| FeedCounts {
            received: sum.received + namespace.counts.received,
            dropped: sum.dropped + namespace.counts.dropped,
            dropped_refusals: sum.dropped_refusals + namespace.counts.dropped_refusals,
            replaced: sum.replaced + namespace.counts.replaced,
        })
    }

    /// The number of lines that could not be parsed.
    pub fn unreadable(&self) -> u64 {
        self.unreadable
    }

    /// The sources of its decisions.
    pub fn sources(&self) -> &[Arc<SourceState>] {
        &self.sources
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;

    fn refusal(path: &str) -> AccessLogEntry {
        let details = "penstock_egress_hostNotAllowed".to_owned();
        AccessLogEntry { details, status: 403, path: path.to_owned(), ..AccessLogEntry::default() }
    }

    fn of(namespace: &str) -> LoggingProxy {
        LoggingProxy { name: None, namespace: Some(namespace.to_owned()) }
    }

    #[test]
    fn decisions_are_bounded_and_displaced_ones_are_counted() {
        let mut feed = DecisionFeed::default();
        let all = u64::try_from(MOST_REFUSALS).unwrap() + 10;
        for number in 0..all {
            // Slow enough for each decision to be stored.
            feed.note("east", &of("a"), refusal("/r"), number as f64);
            feed.note("east", &of("a"), AccessLogEntry::default(), number as f64);
        }
        let cluster = feed.cluster("east").unwrap();
        let refusals = cluster.newest().filter(|decision| decision.outcome == LoggedOutcome::Refused).count();
        assert_eq!((refusals, cluster.newest().count()), (MOST_REFUSALS, MOST_REFUSALS + MOST_OTHERS));
        let counts = cluster.counts(|_| true);
        assert_eq!((counts.received, counts.dropped), (2 * all, 0));
        assert_eq!(counts.replaced, 2 * all - cluster.newest().count() as u64);
        let order: Vec<u64> = cluster.newest().map(|decision| decision.seq).collect();
        assert!(order.windows(2).all(|pair| pair.first() > pair.last()), "{order:?}");
    }

    #[test]
    fn a_flood_is_dropped_and_counted_and_leaves_the_others_alone() {
        let mut feed = DecisionFeed::default();
        (0..10_000).for_each(|_| feed.note("east", &of("loud"), refusal("/"), 5.0));
        feed.note("east", &of("quiet"), refusal("/quiet"), 5.0);
        let cluster = feed.cluster("east").unwrap();
        assert_eq!(cluster.newest().next().map(|decision| &*decision.path), Some("/quiet"));
        let counts = cluster.counts(|namespace| namespace == Some("loud"));
        assert_eq!((counts.received, counts.dropped_refusals), (10_000, 9_900));
        assert_eq!(cluster.counts(|namespace| namespace == Some("quiet")).dropped, 0);
        // A second later, the rate bound allows more.
        feed.note("east", &of("loud"), refusal("/later"), 6.0);
        assert_eq!(feed.cluster("east").unwrap().newest().next().map(|decision| &*decision.path), Some("/later"));
    }

    #[test]
    fn a_clock_that_steps_back_does_not_stop_the_feed() {
        let mut bucket = FeedBucket::full(1.0, 1_000.0);
        assert!(bucket.takes(1_000.0) && !bucket.takes(10.0));
        assert!(bucket.takes(11.5));
    }

    #[test]
    fn namespaces_are_bounded() {
        let mut feed = DecisionFeed::default();
        for number in 0..2 * MOST_NAMESPACES {
            feed.note("east", &of(&number.to_string()), refusal("/"), 1.0);
        }
        let cluster = feed.cluster("east").unwrap();
        assert_eq!(cluster.namespaces.len(), MOST_NAMESPACES);
        assert_eq!(cluster.unreadable(), MOST_NAMESPACES as u64);
    }
}
