//! Generates logs with a known truth: which requests are legitimate, and which are hidden attacks or accidents.

use serde_json::{Value, json};

/// The true nature of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Regular requests of the services.
    Honest,
    /// Somebody tried something once.
    OneOff,
    /// Data exfiltration.
    Planted,
}

/// A log.
#[derive(Debug, Default)]
pub struct Log {
    /// The number of rules that describe the regular requests.
    pub rules: usize,
    /// The requests with their nature, ordered by time.
    pub requests: Vec<(Value, Kind)>,
}

/// SplitMix64: the same seed gives the same log.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub fn of<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }
}

/// Seconds from 2026-11-01.
pub fn at(seconds: u64) -> String {
    let (day, rest) = (1 + seconds / 86_400, seconds % 86_400);
    format!("2026-11-{day:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

pub const FORTNIGHT: u64 = 14 * 86_400;

pub fn caller(service: &str) -> String {
    format!("spiffe://cluster.local/ns/team-{}/sa/{service}", service.len() % 7)
}

pub fn request(caller: Option<&str>, method: &str, host: &str, path: &str, seconds: u64) -> Value {
    let mut request =
        json!({"method": method, "scheme": "https", "authority": host, "path": path, "time": at(seconds)});
    if let Some(caller) = caller {
        request["peer"] = json!(caller);
    }
    request
}

impl Log {
    pub fn push(&mut self, request: Value, kind: Kind) {
        self.requests.push((request, kind));
    }

    pub fn sorted(mut self) -> Log {
        self.requests.sort_by_key(|(request, _)| request["time"].as_str().unwrap().to_owned());
        self
    }

    pub fn lines(&self) -> String {
        self.requests.iter().map(|(request, _)| format!("{request}\n")).collect()
    }
}

/// A path segment with data, of every usual kind.
pub fn id(random: &mut Random, kind: usize) -> String {
    let n = random.next();
    let words =
        ["red", "blue", "small", "large", "chair", "table", "lamp", "sofa", "desk", "shelf", "round", "old", "new"];
    match kind % 8 {
        0 => format!("{}", n % 1_000_000),
        1 => format!(
            "{:08x}-{:04x}-4{:03x}-a{:03x}-{:012x}",
            n as u32,
            n >> 48,
            n & 0xfff,
            n >> 52,
            n & 0xffff_ffff_ffff
        ),
        2 => format!("{n:016x}{:016x}", random.next()),
        3 => format!("ch_3J{n:012x}"),
        4 => (0..4).map(|_| *random.of(&words)).collect::<Vec<_>>().join("-"),
        5 => format!("2026-{:02}-{:02}", 1 + n % 12, 1 + n % 28),
        6 => format!("report-{}.{}.{}.tar.gz", n % 10, n / 10 % 10, n / 100 % 100),
        _ => format!("user{}%40example.com", n % 100_000),
    }
}

/// The same in every log: a new host within an hour, an IP address, an unusual port, random names below one domain, one
/// request a minute around midnight, a path and a method that are not used there, single requests, and a burst of
/// retries.
pub fn plant(log: &mut Log, random: &mut Random, victims: &[(String, String)]) {
    let (who, honest_host) = victims[random.below(victims.len())].clone();
    let begin = 86_400 * 5 + random.below(80_000) as u64;
    for n in 0..60 {
        let path = format!("/upload/{n}");
        log.push(request(Some(&who), "POST", "drop.evil.test", &path, begin + n * 50), Kind::Planted);
        let tunnel = format!("{:016x}.t.evil-dns.test", random.next());
        log.push(request(Some(&who), "GET", &tunnel, "/", begin + n * 7000), Kind::Planted);
        log.push(request(Some(&who), "GET", "203.0.113.66", "/beacon", begin + n * 9000), Kind::Planted);
        log.push(request(Some(&who), "GET", "[2001:db8::66]:443", "/beacon", begin + n * 9000), Kind::Planted);
        log.push(request(Some(&who), "POST", "c2.evil.test:4444", "/c", begin + n * 9000), Kind::Planted);
        log.push(request(Some(&who), "GET", &format!("{honest_host}:8081"), "/", begin + n * 9000), Kind::Planted);
        log.push(request(Some(&who), "POST", "midnight.evil.test", "/", 86_400 * 6 - 1800 + n * 60), Kind::Planted);
        log.push(request(Some(&who), "GET", "2130706433", "/", begin + n * 9000), Kind::Planted);
        log.push(request(Some(&who), "GET", &honest_host, "/..%2f..%2fsecret", begin + n * 9000), Kind::Planted);
        log.push(
            request(Some(&who), "GET", &honest_host, &format!("/dump-everything?part={n}"), begin + n * 30),
            Kind::Planted,
        );
        log.push(request(Some(&who), "DELETE", &honest_host, "/", begin + n * 30), Kind::Planted);
    }
    // A few requests a day over several days.
    for n in 0..6 {
        log.push(request(Some(&who), "POST", "slow.evil.test", "/", n * 86_400 * 2 + 100), Kind::Planted);
    }
    // A burst of retries of a request that was made once on another day.
    log.push(request(Some(&who), "GET", "typo.example.test", "/v1/ping", 3600), Kind::OneOff);
    for n in 0..3000 {
        log.push(request(Some(&who), "GET", "typo.example.test", "/v1/ping", 86_400 * 9 + n / 50), Kind::OneOff);
    }
    for n in 0..40 {
        let host = format!("try-{n}.example-{n}.test");
        log.push(
            request(Some(&random.of(victims).0.clone()), "GET", &host, "/", random.next() % FORTNIGHT),
            Kind::OneOff,
        );
    }
}

/// Callers, host, methods and paths.
type Rule = (Vec<String>, String, Vec<&'static str>, Vec<String>);

/// Forty services with some hosts each, and shared hosts.
pub fn services(seed: u64, size: usize) -> Log {
    let mut random = Random(seed);
    let mut log = Log::default();
    let mut rules: Vec<Rule> = Vec::new();
    let resources = ["charges", "orders", "items", "customers", "mails", "events", "search", "invoices"];
    for service in 0..40 {
        for host in 0..1 + random.below(4) {
            let methods =
                random.of(&[vec!["GET"], vec!["GET", "POST"], vec!["POST"], vec!["GET", "PUT", "DELETE"]]).clone();
            let first = random.below(6);
            let paths = (0..1 + random.below(3)).map(|n| format!("/v{}/{}", 1 + random.below(2), resources[first + n]));
            let paths = paths.collect();
            rules.push((
                vec![caller(&format!("svc-{service}"))],
                format!("api{host}.vendor-{service}.test"),
                methods,
                paths,
            ));
        }
    }
    for shared in ["telemetry.example.com", "errors.example.org"] {
        let callers = (0..40).map(|service| caller(&format!("svc-{service}"))).collect();
        rules.push((callers, shared.to_owned(), vec!["POST"], vec!["/ingest".to_owned()]));
    }
    log.rules = rules.len();
    for n in 0..size {
        let (callers, host, methods, paths) = random.of(&rules).clone();
        let (who, method, path) = (random.of(&callers).clone(), *random.of(&methods), random.of(&paths).clone());
        let seconds = random.next() % FORTNIGHT;
        let tail = match n % 4 {
            0 => format!("/{}?full=1", id(&mut random, n / 4)),
            1 => format!("/{}/lines/{}", id(&mut random, n / 4), n % 50),
            _ => String::new(),
        };
        log.push(request(Some(&who), method, &host, &format!("{path}{tail}"), seconds), Kind::Honest);
    }
    let victims: Vec<(String, String)> = rules.iter().map(|rule| (rule.0[0].clone(), rule.1.clone())).collect();
    plant(&mut log, &mut random, &victims);
    log.sorted()
}

/// Three hosts with a large number of paths each.
pub fn few_hosts(seed: u64, size: usize) -> Log {
    let mut random = Random(seed);
    let mut log = Log::default();
    let areas = ["billing", "catalog", "users", "stock", "mail"];
    let verbs = ["list", "get", "create", "update", "search", "export"];
    let mut victims = Vec::new();
    for service in 0..6 {
        for host in ["api.partner.test", "legacy.partner.test", "files.partner.test"] {
            victims.push((caller(&format!("svc{service}")), host.to_owned()));
        }
    }
    log.rules = victims.len();
    for n in 0..size {
        let (who, host) = random.of(&victims).clone();
        let method = *random.of(&["GET", "POST"]);
        let path = match host.as_str() {
            "files.partner.test" => format!("/{}/{}", id(&mut random, n), id(&mut random, n + 1)),
            _ => format!("/rpc/{}/{}", random.of(&areas), random.of(&verbs)),
        };
        log.push(request(Some(&who), method, &host, &path, random.next() % FORTNIGHT), Kind::Honest);
    }
    let named: Vec<(String, String)> = victims.into_iter().filter(|(_, host)| host != "files.partner.test").collect();
    plant(&mut log, &mut random, &named);
    log.sorted()
}

/// Names in every spelling, callers without identity, names below shared parents.
pub fn spellings(seed: u64, size: usize) -> Log {
    let mut random = Random(seed);
    let mut log = Log::default();
    let (builder, shop) = (caller("builder"), caller("shop"));
    let hosts = ["pypi.example.org", "PYPI.example.org", "pypi.example.org.", "pypi.example.org:443"];
    // The rules of the builder, of the shop's buckets, the tenants' wildcard, and what anyone may request.
    log.rules = 1 + 3 + 1 + 1;
    for n in 0..size {
        let seconds = random.next() % FORTNIGHT;
        let (who, method, host, path) = match n % 4 {
            0 => {
                (Some(&builder), "GET", (*random.of(&hosts)).to_owned(), format!("/simple/{}/", id(&mut random, n / 4)))
            }
            1 => {
                let bucket = *random.of(&["shop-images", "shop-invoices", "shop-backups"]);
                (Some(&shop), "PUT", format!("{bucket}.s3.amazonaws.com"), format!("/{}", id(&mut random, n / 4)))
            }
            2 => (
                Some(&shop),
                "POST",
                format!("tenant{}.desk.example.com", (b'a' + random.below(20) as u8) as char),
                "/api/tickets".to_owned(),
            ),
            _ => (None, "GET", "time.example.net".to_owned(), "/now".to_owned()),
        };
        log.push(request(who.map(String::as_str), method, &host, &path, seconds), Kind::Honest);
    }
    for n in 0..40 {
        let bucket = format!("attacker-{:08x}.s3.amazonaws.com", random.next() as u32);
        log.push(request(Some(&shop), "PUT", &bucket, "/loot", n * 3600 * 7), Kind::Planted);
        log.push(
            request(Some(&builder), "PUT", "shop-images.s3.amazonaws.com", "/loot", 86_400 * 3 + n * 20),
            Kind::Planted,
        );
        log.push(
            request(Some(&builder), "POST", "tenanta.desk.example.com", "/api/tickets", 86_400 * 3 + n * 20),
            Kind::Planted,
        );
        log.push(request(None, "POST", "time.example.net", "/now", 86_400 * 3 + n * 20), Kind::Planted);
    }
    plant(&mut log, &mut random, &[(builder, "pypi.example.org".to_owned())]);
    log.sorted()
}
