//! Requests with any bytes, through the ABI.

use penstock_policy::{Action, FixedEnvironment, Policy, Request};
use proptest::prelude::*;

use super::*;

/// Sections that refuse: by host and path, and for want of a key.
const STRICT: &str = r#"{"egress":{"rules":[
        {"name":"a","to":[{"host":"a.test"}],"methods":["GET"],"paths":[{"value":"/x"}]}]},
    "rateLimits":[{"name":"l","key":[{"header":"x-user"}],"onMissingKey":"Deny","limit":{"requests":2,"per":"1h"}}],
    "routes":{"rules":[
        {"name":"beta","matches":[{"headers":[{"name":"x-user-group","value":"beta"}]}],"route":"beta"}]}}"#;

type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// One of these texts, or any bytes.
fn one_of(texts: &'static [&'static str], longest: usize) -> impl Strategy<Value = Vec<u8>> {
    let known = prop::sample::select(texts).prop_map(|text| text.as_bytes().to_vec());
    prop_oneof![3 => known, 1 => prop::collection::vec(any::<u8>(), 0..longest)]
}

/// A request that [`STRICT`] allows, with changes.
fn headers() -> impl Strategy<Value = Fields> {
    const NAMES: &[&str] = &[":path", "host", "x-user", "x-user-group", "x-penstock-route", "cookie"];
    const VALUES: &[&str] = &["GET", "PUT", "a.test", "b.test", "/x", "/x/../y", "1", "beta", ""];
    let usual = [(":method", "GET"), (":scheme", "https"), (":authority", "a.test"), (":path", "/x"), ("x-user", "1")];
    let usual: Fields = usual.map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).to_vec();
    let kept = prop::sample::subsequence(usual.clone(), 1..=usual.len());
    let changed = (Just(usual.clone()), any::<prop::sample::Index>(), one_of(VALUES, 50));
    let changed = changed.prop_map(|(mut usual, at, value)| {
        at.get_mut(&mut usual).1 = value;
        usual
    });
    let base = prop_oneof![Just(usual), changed, kept];
    let more = prop::collection::vec((one_of(NAMES, 20), one_of(VALUES, 50)), 0..4);
    (base, more).prop_map(|(base, more)| base.into_iter().chain(more).collect())
}

proptest! {
    #[test]
    fn any_header_map_is_decided_or_refused(map in prop::collection::vec(any::<u8>(), 0..200)) {
        fresh();
        prop_assert!(configured(PLUGIN, POLICY));
        with(|proxy| proxy.raw_headers = Some(map));
        let flow = request(PLUGIN, &[]);
        prop_assert_eq!(flow == Flow::Pause, with(|proxy| proxy.sent.is_some()));
    }

    /// The engine decides the same headers without the ABI between.
    #[test]
    fn any_headers_are_decided_as_the_engine_decides_them(headers in headers()) {
        fresh();
        prop_assert!(configured(PLUGIN, STRICT));
        with(|proxy| proxy.headers.clone_from(&headers));
        vm().context_create(STREAM, PLUGIN);
        let flow = vm().request_headers(STREAM, true);
        vm().delete(STREAM);

        let policy = Policy::<Suite>::from_json(STRICT.as_bytes()).unwrap();
        let map: Vec<_> = headers.iter().map(|(name, value)| (name.as_slice(), value.as_slice())).collect();
        let decision = policy.decide(&Request::new(&map), &mut FixedEnvironment::default()).unwrap();
        let status = match &decision.action {
            Action::Continue => None,
            Action::Respond(response) => Some(u32::from(response.status)),
        };
        prop_assert_eq!(with(|proxy| proxy.sent.as_ref().map(|sent| sent.status)), status);
        prop_assert_eq!(flow == Flow::Continue, status.is_none());
        if status.is_none() {
            prop_assert_eq!(route().concat(), decision.route.unwrap_or_default());
        }
    }
}
