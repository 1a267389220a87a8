//! Services and their vendors: ids of every form, hosts in every spelling, domains below which anyone can register
//! names.

use crate::generator::{FORTNIGHT, Kind, Log, Random, plant, request};

/// The forms of ids in these logs.
const FORMS: usize = 13;

fn out_of(random: &mut Random, letters: &str, length: usize) -> String {
    (0..length).map(|_| char::from(*random.of(letters.as_bytes()))).collect()
}

const LOWER: &str = "abcdefghijklmnopqrstuvwxyz";

fn id(random: &mut Random, form: usize) -> String {
    const ALPHANUMERIC: &str = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    const CROCKFORD: &str = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    match form % FORMS {
        0 => out_of(random, CROCKFORD, 26),
        1 => out_of(random, CROCKFORD, 26).to_lowercase(),
        2 => crate::generator::id(random, 1),
        3 => out_of(random, "0123456789abcdef", 40),
        4 => out_of(random, "0123456789abcdef", 12) + "1",
        5 => crate::generator::id(random, 5).replace('-', ""),
        6 => out_of(random, ALPHANUMERIC, 21) + "aA1",
        7 => format!("{}-{}", out_of(random, "ABCDEF", 2), 1000 + random.below(9000)),
        8 => format!("c{}7", out_of(random, LOWER, 23)),
        9 => format!("{}@{}.example", out_of(random, LOWER, 5), out_of(random, LOWER, 6)),
        10 => random.below(1_000_000_000).to_string(),
        11 => out_of(random, LOWER, 9),
        _ => format!("v{}.{}.{}", 1 + random.below(99), random.below(9), random.below(9)),
    }
}

/// Twenty services with their vendors' hosts, some of them below suffixes that anyone shares.
pub fn vendors(seed: u64, size: usize) -> Log {
    let mut random = Random(seed);
    let mut log = Log::default();
    let resources =
        ["users", "orders", "v1/payments", "v2/items", "api/v3/reports", "files", "rest/inventory", "oauth/token"];
    let methods = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"];
    let mut rules = Vec::new();
    for service in 0..20 {
        let who = format!("spiffe://prod.example/ns/ns-{}/sa/svc-{service}", service % 6);
        for _ in 0..1 + random.below(2) {
            let name = out_of(&mut random, LOWER, 7);
            let host = match random.below(6) {
                0 => format!("api.{name}.com"),
                1 => format!("{name}.shop.co.uk"),
                2 => format!("{name}.github.io"),
                3 => format!("{name}.s3.amazonaws.com"),
                4 => format!("{name}.azurewebsites.net"),
                _ => format!("{name}.svc.internal"),
            };
            let first = random.below(methods.len() - 1);
            rules.push((who.clone(), host, [methods[first], methods[first + 1]], random.below(FORMS), random.below(7)));
        }
    }
    log.rules = rules.len();
    for n in 0..size {
        let (who, host, methods, form, first) = random.of(&rules).clone();
        let value = |random: &mut Random| id(random, form);
        let path = format!("/{}", resources[first + random.below(2)]);
        let path = match n % 4 {
            0 => format!("{path}/{}", value(&mut random)),
            1 => format!("{path}/{}/details", value(&mut random)),
            2 => format!("{path}?page={n}"),
            _ => path,
        };
        let host = match random.below(8) {
            0 => host.to_uppercase(),
            1 => format!("{host}."),
            2 => format!("{host}:443"),
            _ => host,
        };
        let method = methods[random.below(2)];
        log.push(request(Some(&who), method, &host, &path, random.next() % FORTNIGHT), Kind::Honest);
    }
    let (who, host) = (rules[0].0.clone(), rules[0].1.clone());
    for n in 0..60 {
        let begin = 86_400 * 3 + n * 4000;
        let bucket = format!("{}.s3.amazonaws.com", out_of(&mut random, LOWER, 10));
        log.push(request(Some(&who), "PUT", &bucket, "/loot", begin), Kind::Planted);
        let page = format!("{}.github.io", out_of(&mut random, LOWER, 9));
        log.push(request(Some(&who), "PUT", &page, "/loot", begin), Kind::Planted);
        let tunnel = format!("{}.{}.tun.evil.test", out_of(&mut random, LOWER, 20), out_of(&mut random, LOWER, 20));
        log.push(request(Some(&who), "GET", &tunnel, "/", begin), Kind::Planted);
        log.push(request(Some(&who), "POST", "0x7f.1", "/b", begin), Kind::Planted);
        log.push(request(Some(&who), "GET", &format!("{host}:22"), "/", begin), Kind::Planted);
        log.push(request(Some(&who), "GET", &host, &format!("/.env?{n}"), 86_400 * 4 + n * 10), Kind::Planted);
    }
    plant(&mut log, &mut random, &[(who, host)]);
    log.sorted()
}
