//! <https://github.com/envoyproxy/ratelimit#descriptor-list-definition>: exactly one of the entries that match a value
//! counts: the exact value, or else the first wildcard, or else the key alone.

use super::*;

#[derive(Clone, Debug)]
struct Descriptor {
    key: &'static str,
    value: &'static str,
    limit: Option<u32>,
    below: Vec<Descriptor>,
}

const VALUES: [&str; 6] = ["", "", "ab", "a*", "*b", "b"];
const SENT: [&str; 5] = ["ab", "ax", "xb", "b", "c"];

fn descriptors(depth: u32) -> BoxedStrategy<Vec<Descriptor>> {
    let below = if depth == 0 { Just(Vec::new()).boxed() } else { descriptors(depth - 1) };
    let key = prop::sample::select(if depth == 0 { &["x-c"][..] } else { &["x-a", "x-b"][..] });
    let one = (key, prop::sample::select(&VALUES[..]), prop::option::weighted(0.7, 1..6_u32), below)
        .prop_map(|(key, value, limit, below)| Descriptor { key, value, limit, below });
    let list = prop::collection::vec(one, 0..4);
    // The service refuses duplicate entries.
    list.prop_map(|list| {
        let mut seen = Vec::new();
        list.into_iter()
            .filter(|one| {
                let new = !seen.contains(&(one.key, one.value));
                seen.push((one.key, one.value));
                new
            })
            .collect()
    })
    .boxed()
}

fn json_of(list: &[Descriptor]) -> Vec<Value> {
    list.iter()
        .map(|one| {
            let mut json = json!({"key": one.key});
            if !one.value.is_empty() {
                json["value"] = json!(one.value);
            }
            if let Some(limit) = one.limit {
                json["rate_limit"] = json!({"unit": "day", "requests_per_unit": limit});
            }
            if !one.below.is_empty() {
                json["descriptors"] = json!(json_of(&one.below));
            }
            json
        })
        .collect()
}

fn fits(pattern: &str, value: &str) -> bool {
    match pattern.split_once('*') {
        Some((front, back)) => {
            value.len() >= front.len() + back.len() && value.starts_with(front) && value.ends_with(back)
        }
        None => pattern == value,
    }
}

/// The tightest limit of all descriptors that Envoy could send: each key with the keys below it.
fn tightest(list: &[Descriptor], headers: &[(&str, &str)]) -> Option<u32> {
    let mut found = None;
    for (key, value) in headers {
        let of_key = || list.iter().filter(|one| one.key == *key);
        let entry = of_key()
            .find(|one| one.value == *value)
            .or_else(|| of_key().find(|one| one.value.contains('*') && fits(one.value, value)))
            .or_else(|| of_key().find(|one| one.value.is_empty()));
        let Some(entry) = entry else { continue };
        for limit in entry.limit.into_iter().chain(tightest(&entry.below, headers)) {
            found = Some(found.map_or(limit, |known: u32| known.min(limit)));
        }
    }
    found
}

proptest! {
    #[test]
    fn descriptors_count_what_the_service_counts(
        list in descriptors(1), values in prop::collection::vec(prop::option::of(prop::sample::select(&SENT[..])), 3)
    ) {
        prop_assume!(!list.is_empty());
        let (_, policy, _, text) = policy_of(&[json!({"domain": "d", "descriptors": json_of(&list)})]);
        let headers: Vec<(&str, &str)> =
            ["x-a", "x-b", "x-c"].into_iter().zip(&values).filter_map(|(key, value)| Some((key, (*value)?))).collect();
        let request: WireRequest =
            serde_json::from_value(json!({"method": "GET", "authority": "a", "path": "/", "headers": headers})).unwrap();
        let mut world = World::new(Timestamp(0), 0);
        let passed = (0..9).filter(|_| request.decide(&policy, &mut world).status.is_none()).count() as u32;
        prop_assert_eq!(passed, tightest(&list, &headers).unwrap_or(9), "{:?}\n{}", headers, text);
    }
}
