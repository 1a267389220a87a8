//! The memory that all limits of a policy may use together.

use super::document::LimitDocument;
use crate::document::{At, Context};

/// The most busy keys that the local limits of a policy hold together: 128 limits of the default capacity. If all of
/// them are busy, that is about 540 MiB in the memory of a proxy; without requests it is nothing.
const MOST_KEYS: u64 = 8_388_608;

/// Whether the limits fit into memory together; records a problem at the first that does not.
pub(super) fn check(limits: &[LimitDocument], at: &At<'_>, cx: &mut Context) -> bool {
    let local = || limits.iter().enumerate().filter(|(_, limit)| limit.scope.is_local());
    let mut left = MOST_KEYS;
    for (i, limit) in local() {
        let keys = u64::from(limit.keys());
        if keys <= left {
            left -= keys;
            continue;
        }
        let number = local().filter(|(_, limit)| !limit.key.is_empty()).count() as u64;
        let message = format!(
            "{keys} keys do not fit: the limits before this one hold {} of the {MOST_KEYS} that all limits of a policy may hold",
            MOST_KEYS - left
        );
        let help = format!("write a smaller `capacity`; {} for each limit would fit", MOST_KEYS / number.max(1));
        cx.problem_at(&at.index(i).field("capacity"), message, help);
        return false;
    }
    true
}

#[cfg(test)]
mod tests {
    use crate::{Policy, module};
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn problems(limits: &[String]) -> Vec<String> {
        let json = format!(r#"{{"rateLimits":[{}]}}"#, limits.join(","));
        match Policy::<module::RateLimit>::from_json(json.as_bytes()) {
            Ok(_) => Vec::new(),
            Err(problems) => problems.iter().map(ToString::to_string).collect(),
        }
    }

    fn limits(number: usize, key: &str, rest: &str) -> Vec<String> {
        let limit = |i| format!(r#"{{"name":"l{i}","key":[{key}],"limit":{{"requests":1,"per":"1m"}}{rest}}}"#);
        (0..number).map(limit).collect()
    }

    #[test]
    fn limits_that_do_not_fit_are_told_what_would() {
        const KEY: &str = r#"{"method":{}}"#;
        assert_eq!(problems(&limits(128, KEY, "")), Vec::<String>::new());
        assert_eq!(
            problems(&limits(200, KEY, "")),
            [
                "rateLimits[128].capacity: 65536 keys do not fit: the limits before this one hold 8388608 of the 8388608 that \
                all limits of a policy may hold; write a smaller `capacity`; 41943 for each limit would fit"
            ]
        );
        assert_eq!(problems(&limits(200, KEY, r#","capacity":41943"#)), Vec::<String>::new());
        assert_eq!(problems(&limits(9, KEY, r#","capacity":1048576"#)).len(), 1);
        // A limit with one bucket counts as one key; a service's limits use none of this memory.
        assert_eq!(problems(&limits(5_000, "", "")), Vec::<String>::new());
        assert_eq!(
            problems(&limits(300, KEY, r#","scope":{"global":{"cluster":"c","domain":"d"}}"#)),
            Vec::<String>::new()
        );
    }
}
