//! Stores a bounded number of decisions, and counts those that are not stored.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use super::decision::{AccessLogEntry, FeedPrivacy, LoggedDecision, LoggedOutcome};

/// The maximum number of stored refusals (including those that Audit or Shadow only report) for a cluster, at most 3
/// KiB each.
const MOST_REFUSALS: usize = 2_000;

/// The maximum number of other decisions, which are bounded separately so that they do not displace refusals.
const MOST_OTHERS: usize = 500;

/// The number of refusals a second, and in a burst, that are stored for a sender. One that floods the feed must not
/// displace the decisions of others.
const REFUSALS_PER_SECOND: f64 = 100.0;

/// The same for other decisions.
const OTHERS_PER_SECOND: f64 = 20.0;

/// The maximum number of senders. A further one takes the place of the one that has not sent for the longest time.
const MOST_SENDERS: usize = 1_000;

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
    /// By sequence number.
    refusals: BTreeMap<u64, LoggedDecision>,
    others: BTreeMap<u64, LoggedDecision>,
    senders: BTreeMap<Sender, SenderFeed>,
    /// The counts of senders that are not known any more.
    forgotten: FeedCounts,
    /// The number of lines that are not requests, or are malformed; their namespace is unknown.
    unreadable: u64,
    sources: Vec<Arc<SourceState>>,
}

/// Whose decisions are bounded together: those of a namespace, or of a proxy that has none.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Sender {
    namespace: Option<String>,
    proxy: Option<String>,
}

impl Sender {
    fn of(proxy: &LoggingProxy) -> Sender {
        let namespace = proxy.namespace.clone();
        Sender { proxy: proxy.name.clone().filter(|_| namespace.is_none()), namespace }
    }
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
    pub open: AtomicUsize,
    /// The number of streams that ended with an error.
    pub refused_streams: AtomicU64,
    /// The number of connections that were closed because they were too slow, sent nothing, or others needed their place.
    pub closed_connections: Arc<AtomicU64>,
}

/// What is known of a sender.
#[derive(Debug)]
struct SenderFeed {
    counts: FeedCounts,
    refusals: SenderPart,
    others: SenderPart,
    /// The sequence number of its last request, stored or not.
    used: u64,
}

/// A sender's refusals, or its other decisions.
#[derive(Debug)]
struct SenderPart {
    bucket: FeedBucket,
    /// The sequence numbers of those that are stored, the oldest first.
    stored: VecDeque<u64>,
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
    /// Senders whose place others have taken. They are known again when they send.
    pub forgotten_senders: u64,
}

impl std::ops::Add for FeedCounts {
    type Output = FeedCounts;

    fn add(self, other: FeedCounts) -> FeedCounts {
        FeedCounts {
            received: self.received + other.received,
            dropped: self.dropped + other.dropped,
            dropped_refusals: self.dropped_refusals + other.dropped_refusals,
            replaced: self.replaced + other.replaced,
            forgotten_senders: self.forgotten_senders + other.forgotten_senders,
        }
    }
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

impl SenderFeed {
    fn new(now: f64) -> SenderFeed {
        let part = |per_second| SenderPart { bucket: FeedBucket::full(per_second, now), stored: VecDeque::new() };
        SenderFeed {
            counts: FeedCounts::default(),
            refusals: part(REFUSALS_PER_SECOND),
            others: part(OTHERS_PER_SECOND),
            used: 0,
        }
    }

    fn part(&mut self, is_refusal: bool) -> &mut SenderPart {
        if is_refusal { &mut self.refusals } else { &mut self.others }
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
        self.last += 1;
        let mut decision = LoggedDecision::of(logged, &self.privacy, now);
        decision.seq = self.last;
        decision.proxy.clone_from(&proxy.name);
        decision.namespace.clone_from(&proxy.namespace);
        self.clusters.entry(cluster.to_owned()).or_default().note(Sender::of(proxy), decision, now);
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
    fn note(&mut self, sender: Sender, decision: LoggedDecision, now: f64) {
        if self.senders.len() >= MOST_SENDERS && !self.senders.contains_key(&sender) {
            self.forget_oldest();
        }
        let known = self.senders.entry(sender).or_insert_with(|| SenderFeed::new(now));
        known.used = decision.seq;
        known.counts.received += 1;
        let is_refusal = matches!(decision.outcome, LoggedOutcome::Refused | LoggedOutcome::HeldBack);
        let part = known.part(is_refusal);
        if !part.bucket.takes(now) {
            known.counts.dropped += 1;
            known.counts.dropped_refusals += u64::from(is_refusal);
            return;
        }
        part.stored.push_back(decision.seq);
        let (stored, most) =
            if is_refusal { (&mut self.refusals, MOST_REFUSALS) } else { (&mut self.others, MOST_OTHERS) };
        stored.insert(decision.seq, decision);
        if stored.len() <= most {
            return;
        }
        // The oldest one of the sender that has the most, so that many senders have the same share.
        let of_sender = |sender: &SenderFeed| {
            let stored = if is_refusal { &sender.refusals.stored } else { &sender.others.stored };
            (stored.len(), Reverse(stored.front().copied()))
        };
        if let Some(longest) = self.senders.values_mut().max_by_key(|sender| of_sender(sender))
            && let Some(oldest) = longest.part(is_refusal).stored.pop_front()
        {
            stored.remove(&oldest);
            longest.counts.replaced += 1;
        }
    }

    /// Forgets the sender that has not sent for the longest time, with its decisions.
    fn forget_oldest(&mut self) {
        let oldest = self.senders.iter().min_by_key(|(_, sender)| sender.used).map(|(name, _)| name.clone());
        let Some(sender) = oldest.and_then(|oldest| self.senders.remove(&oldest)) else { return };
        let stored = sender.refusals.stored.len() + sender.others.stored.len();
        sender.refusals.stored.iter().for_each(|seq| drop(self.refusals.remove(seq)));
        sender.others.stored.iter().for_each(|seq| drop(self.others.remove(seq)));
        let replaced = sender.counts.replaced + stored as u64;
        self.forgotten = self.forgotten + FeedCounts { replaced, forgotten_senders: 1, ..sender.counts };
    }

    /// All decisions, newest first.
    pub fn newest(&self) -> impl Iterator<Item = &LoggedDecision> {
        let (mut refusals, mut others) =
            (self.refusals.values().rev().peekable(), self.others.values().rev().peekable());
        std::iter::from_fn(move || match (refusals.peek(), others.peek()) {
            (Some(refusal), Some(other)) if refusal.seq < other.seq => others.next(),
            (Some(_), _) => refusals.next(),
            (None, _) => others.next(),
        })
    }

    /// The counts of the namespaces that `may_see` accepts.
    pub fn counts(&self, may_see: impl Fn(Option<&str>) -> bool) -> FeedCounts {
        let visible = self.senders.iter().filter(|(sender, _)| may_see(sender.namespace.as_deref()));
        // Which namespaces these were is not known any more, so they are for those who may see all.
        let forgotten = if may_see(None) { self.forgotten } else { FeedCounts::default() };
        visible.fold(forgotten, |sum, (_, sender)| sum + sender.counts)
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
    fn later_senders_take_the_place_of_silent_ones_which_come_back() {
        let mut feed = DecisionFeed::default();
        let note =
            |feed: &mut DecisionFeed, sender: &str, path: &str| feed.note("east", &of(sender), refusal(path), 1.0);
        note(&mut feed, "honest", "/before");
        for number in 0..5 * MOST_SENDERS {
            note(&mut feed, &number.to_string(), "/hostile");
            if number % 100 == 0 {
                note(&mut feed, "busy", "/busy");
            }
        }
        // One that comes late, and one that comes back.
        note(&mut feed, "late", "/late");
        note(&mut feed, "honest", "/again");
        let cluster = feed.cluster("east").unwrap();
        let paths: Vec<&str> = cluster.newest().map(|one| &*one.path).filter(|path| *path != "/hostile").collect();
        // The one that has sent all the time has kept everything.
        assert_eq!(paths, [&["/again", "/late"][..], &["/busy"; 50]].concat());
        let all = 5 * MOST_SENDERS as u64 + 53;
        let counts = cluster.counts(|_| true);
        let stored = cluster.newest().count() as u64;
        assert_eq!((cluster.senders.len(), stored), (MOST_SENDERS, MOST_SENDERS as u64 + 49));
        assert_eq!((counts.received, counts.replaced), (all, all - stored));
        assert_eq!(counts.forgotten_senders, 5 * MOST_SENDERS as u64 + 4 - MOST_SENDERS as u64);
        // A viewer of one namespace does not see the counts of others.
        let of_late = cluster.counts(|namespace| namespace == Some("late"));
        assert_eq!((of_late.received, of_late.forgotten_senders), (1, 0));
    }

    #[test]
    fn many_that_flood_leave_each_sender_its_share() {
        let mut feed = DecisionFeed::default();
        (0..20).for_each(|_| feed.note("east", &of("honest"), refusal("/honest"), 1.0));
        for number in 0..50 {
            (0..100).for_each(|_| feed.note("east", &of(&format!("h{number}")), refusal("/hostile"), 1.0));
        }
        let honest = feed.cluster("east").unwrap().newest().filter(|one| one.path == "/honest").count();
        assert_eq!(honest, 20);
    }

    #[test]
    fn proxies_without_a_namespace_are_bounded_each_by_itself() {
        let mut feed = DecisionFeed::default();
        let named = |name: &str| LoggingProxy { name: Some(name.to_owned()), namespace: None };
        (0..1_000).for_each(|_| feed.note("east", &named("loud"), refusal("/"), 1.0));
        feed.note("east", &named("quiet"), refusal("/quiet"), 1.0);
        assert_eq!(feed.cluster("east").unwrap().newest().next().map(|one| &*one.path), Some("/quiet"));
    }
}
