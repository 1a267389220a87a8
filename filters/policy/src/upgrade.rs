//! The `connection` header of an upgrade, which Envoy forwards as the client wrote it: each option that names a header
//! tells the next proxy to drop that header (RFC 9110, section 7.6.1). A client could use it to drop what the policy
//! sets.

use std::borrow::Cow;

use crate::decision::{HeaderOp, HeaderOps};
use crate::request::Request;

const CONNECTION: &str = "connection";

/// Removes the options that name a header which the decision sets or adds.
#[cold]
#[inline(never)]
pub(crate) fn keep_what_is_set(request: &Request<'_>, changes: &mut HeaderOps<'_>) {
    let is_set = |option: &[u8]| {
        changes.iter().any(|change| match change {
            HeaderOp::Set(name, _) | HeaderOp::Add(name, _) => name.as_bytes().eq_ignore_ascii_case(option),
            HeaderOp::Remove(_) => false,
        })
    };
    let options = request.values(CONNECTION.as_bytes()).flat_map(|value| value.split(|byte| *byte == b','));
    let options = options.map(<[u8]>::trim_ascii);
    if !options.clone().any(is_set) {
        return;
    }
    let left: Vec<&[u8]> = options.filter(|option| !option.is_empty() && !is_set(option)).collect();
    changes.push(match left.is_empty() {
        true => HeaderOp::Remove(CONNECTION),
        false => HeaderOp::Set(CONNECTION, Cow::Owned(left.join(&b", "[..]))),
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn after(options: &[&str], changes: &[HeaderOp<'static>]) -> Option<HeaderOp<'static>> {
        let headers: Vec<_> = options.iter().map(|value| (CONNECTION.as_bytes(), value.as_bytes())).collect();
        let mut all: HeaderOps<'_> = changes.iter().cloned().collect();
        keep_what_is_set(&Request::new(&headers), &mut all);
        assert_eq!(all.get(..changes.len()), Some(changes));
        all.get(changes.len()).cloned()
    }

    #[test]
    fn an_option_that_names_a_header_of_the_policy_is_taken_out() {
        let set = |name| HeaderOp::Set(name, Cow::Borrowed(b"v"));
        let changes = [set("x-plan"), HeaderOp::Add("x-tag", Cow::Borrowed(b"v")), HeaderOp::Remove("x-gone")];
        let left = |value: &'static str| Some(HeaderOp::Set(CONNECTION, Cow::Borrowed(value.as_bytes())));
        assert_eq!(after(&["Upgrade, X-Plan,x-other , x-tag"], &changes), left("Upgrade, x-other"));
        assert_eq!(after(&["Upgrade", "x-plan"], &changes), left("Upgrade"));
        assert_eq!(after(&["x-plan"], &changes), Some(HeaderOp::Remove(CONNECTION)));
        // Headers that the policy removes or does not mention are the client's own.
        assert_eq!(after(&["Upgrade, x-gone, x-planned"], &changes), None);
        assert_eq!(after(&["Upgrade"], &changes), None);
    }
}
