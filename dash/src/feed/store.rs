//! A bounded number of decisions, and counts of everything that is not kept.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use super::decision::{AccessLogEntry, FeedPrivacy, LoggedDecision, LoggedOutcome};

/// So many refusals (and what Audit or Shadow held back) are kept of a cluster, at most 3 KiB each.
const MOST_REFUSALS: usize = 2_000;

/// So many of the other decisions: they must not push the refusals out.
const MOST_OTHERS: usize = 500;

/// So many refusals a second of one namespace are kept, and as many at once: one that floods the feed must not push out those of
/// the others.
const REFUSALS_PER_SECOND: f64 = 100.0;

/// So many others.
const OTHERS_PER_SECOND: f64 = 20.0;

/// No more namespaces are told apart; the decisions of further ones are dropped.
const MOST_NAMESPACES: usize = 1_000;

/// What all threads share.
pub type SharedFeed = Arc<Mutex<DecisionFeed>>;

/// Locks the feed. A thread that panicked with it (none should) has left whole decisions.
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
    /// Lines that were no request, or broken. Of which namespace, nobody knows.
    unreadable: u64,
    sources: Vec<Arc<SourceState>>,
}

/// Where decisions come from, and how that goes.
#[derive(Debug, Default)]
pub struct SourceState {
    /// Such as `gRPC access logs at 127.0.0.1:9912`.
    pub name: String,
    /// What is wrong with it now.
    pub error: Mutex<Option<String>>,
    /// Streams or files that are open.
    pub open: std::sync::atomic::AtomicUsize,
}

/// What of one namespace came, and was not kept.
#[derive(Debug)]
struct NamespaceFeed {
    counts: FeedCounts,
    refusals: FeedBucket,
    others: FeedBucket,
}

/// Requests that came in access logs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FeedCounts {
    /// All.
    pub received: u64,
    /// Of these, dropped because more came in a second than are kept.
    pub dropped: u64,
    /// Of the dropped, refusals and what was held back.
    pub dropped_refusals: u64,
    /// Kept once, and gone since because newer ones came.
    pub replaced: u64,
}

/// So many decisions a second, and as many at once.
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
    /// Its name in the dash, or its node's id.
    pub name: Option<String>,
    /// Its namespace.
    pub namespace: Option<String>,
}

impl DecisionFeed {
    /// An empty feed.
    pub fn new(privacy: FeedPrivacy) -> DecisionFeed {
        DecisionFeed { privacy, ..DecisionFeed::default() }
    }

    /// Adds a source of a cluster.
    pub fn add_source(&mut self, cluster: &str, name: String) -> Arc<SourceState> {
        let source = Arc::new(SourceState { name, ..SourceState::default() });
        self.clusters.entry(cluster.to_owned()).or_default().sources.push(Arc::clone(&source));
        source
    }

    /// Keeps a logged request, when there is room.
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

    /// Counts a line that is no request, or broken.
    pub fn note_unreadable(&mut self, cluster: &str) {
        self.clusters.entry(cluster.to_owned()).or_default().unreadable += 1;
    }

    /// The decisions of a cluster. `None`: none of its access logs come here.
    pub fn cluster(&self, name: &str) -> Option<&ClusterFeed> {
        self.clusters.get(name)
    }
}

impl ClusterFeed {
    /// All decisions, the newest first.
    pub fn newest(&self) -> impl Iterator<Item = &LoggedDecision> {
        let (mut refusals, mut others) = (self.refusals.iter().rev().peekable(), self.others.iter().rev().peekable());
        std::iter::from_fn(move || match (refusals.peek(), others.peek()) {
            (Some(refusal), Some(other)) if refusal.seq < other.seq => others.next(),
            (Some(_), _) => refusals.next(),
            (None, _) => others.next(),
        })
    }

    /// What came, of those namespaces that `may_see`.
    pub fn counts(&self, may_see: impl Fn(Option<&str>) -> bool) -> FeedCounts {
        let visible = self.namespaces.iter().filter(|(namespace, _)| may_see(namespace.as_deref()));
        visible.fold(FeedCounts::default(), |sum, (_, namespace)| FeedCounts {
            received: sum.received + namespace.counts.received,
            dropped: sum.dropped + namespace.counts.dropped,
            dropped_refusals: sum.dropped_refusals + namespace.counts.dropped_refusals,
            replaced: sum.replaced + namespace.counts.replaced,
        })
    }

    /// Lines that could not be read.
    pub fn unreadable(&self) -> u64 {
        self.unreadable
    }

    /// Where its decisions come from.
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
    fn decisions_are_bounded_and_what_is_gone_is_counted() {
        let mut feed = DecisionFeed::default();
        let all = u64::try_from(MOST_REFUSALS).unwrap() + 10;
        for number in 0..all {
            // Slow enough that each is kept.
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
        // A second later there is room again.
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
