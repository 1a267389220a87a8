//! Rules that end soon: a value for a gauge, and a line for the log.

use super::{Egress, EgressRule};
use crate::document::visible;
use crate::environment::{Environment, Timestamp};
use crate::state::{Change, Key};

const DAY: u64 = 24 * 3_600 * 1_000_000_000;

/// Days ahead of a rule's end from which on the log warns.
const WARN_DAYS: u64 = 14;

/// The number of rules that a warning names.
const MOST_NAMED: usize = 10;

impl Egress {
    /// Whether any rule ever ends.
    pub fn expires(&self) -> bool {
        self.rules.iter().any(|rule| rule.expires.is_some())
    }

    /// When the next rule ends; `None` when none will.
    pub fn next_expiry(&self, now: Timestamp) -> Option<Timestamp> {
        self.rules.iter().filter_map(|rule| rule.expires.filter(|expires| *expires > now)).min()
    }

    /// A line that names the rules that end within 14 days. It is returned once a day, to the worker that calls first, and when
    /// a new policy brings other rules that end soon: the last warning is stored.
    pub fn expiry_warning(&self, environment: &mut impl Environment) -> Option<String> {
        let now = environment.now();
        let ending = || self.rules.iter().filter_map(|rule| Some((rule, days_left(rule, now)?))).filter(is_near);
        let number = ending().count();
        ending().next()?;
        let rules = if number == 1 { "egress rule ends" } else { "egress rules end" };
        let mut line = format!("{number} {rules} within {WARN_DAYS} days:");
        for (i, (rule, days)) in ending().take(MOST_NAMED).enumerate() {
            let owner = rule.owner.as_deref().unwrap_or("nobody");
            let comma = if i > 0 { "," } else { "" };
            line.push_str(&format!("{comma} {} (owner: {}) in {days} d", rule.name, visible(owner)));
        }
        if number > MOST_NAMED {
            line.push_str(&format!(", and {} more", number - MOST_NAMED));
        }
        // The line contains the days left, so that it differs from day to day; the date is for a rule's last hours.
        let said = format!("{} {line}", now.0 / DAY).into_bytes();
        let is_new = environment.update(Key::Named("expiry"), |before, new| {
            if before == said {
                // Another worker may have logged it just now.
                return Change::Refuse(false);
            }
            new.extend_from_slice(&said);
            Change::Replace(true)
        });
        is_new.unwrap_or(false).then_some(line)
    }
}

fn days_left(rule: &EgressRule, now: Timestamp) -> Option<u64> {
    Some(rule.expires?.0.checked_sub(now.0).filter(|left| *left > 0)? / DAY)
}

fn is_near((_, days): &(&EgressRule, u64)) -> bool {
    *days < WARN_DAYS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Policy;
    use crate::wire::{WireRequest, World};
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn policy(expires: &str) -> Policy {
        let rules = format!(
            r#"[{{"name":"a","owner":"web","to":[{{"host":"a.test"}}],"expires":"{expires}"}},
                {{"name":"b","to":[{{"host":"a.test"}}],"expires":"2020-01-01T00:00:00Z"}},
                {{"name":"c","to":[{{"host":"a.test"}}]}}]"#
        );
        Policy::from_json(format!(r#"{{"egress":{{"rules":{rules}}}}}"#).as_bytes()).unwrap()
    }

    fn ask(policy: &Policy, world: &mut World) -> Option<String> {
        let request = r#"{"method":"GET","authority":"a.test","path":"/"}"#;
        let request: WireRequest = serde_json::from_str(request).unwrap();
        policy.egress().unwrap().expiry_warning(&mut request.environment(world))
    }

    #[test]
    fn a_rule_is_named_once_a_day_in_its_last_fourteen() {
        let time = |text| Timestamp::parse(text).unwrap();
        let policy = policy("2026-01-20T00:00:00Z");
        let egress = policy.egress().unwrap();
        let end = time("2026-01-20T00:00:00Z");
        let mut world = World::new(time("2026-01-05T23:59:59Z"), 0);
        assert_eq!((egress.next_expiry(world.now), ask(&policy, &mut world)), (Some(end), None));
        world.now = time("2026-01-06T12:00:00Z");
        assert_eq!(egress.next_expiry(world.now), Some(end));
        let line = "1 egress rule ends within 14 days: a (owner: web) in 13 d";
        assert_eq!((ask(&policy, &mut world).as_deref(), ask(&policy, &mut world)), (Some(line), None));
        world.now = time("2026-01-07T12:00:00Z");
        assert!(ask(&policy, &mut world).is_some());
        let other = super::tests::policy("2026-01-10T00:00:00Z");
        assert!(ask(&other, &mut world).unwrap().ends_with("in 2 d"), "a reload that brings another end");
        world.now = time("2026-01-20T00:00:00Z");
        assert_eq!((egress.next_expiry(world.now), ask(&policy, &mut world)), (None, None));
        assert!(egress.expires());
    }
}
