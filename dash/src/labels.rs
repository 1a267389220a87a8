//! Metrics whose labels Envoy writes into their names: those of the native body.

use std::borrow::Cow;

/// The name with its labels in the places where those of the wasm modules have them:
/// `wasmcustom.penstock.<field>.<rule>[.<variant>][.<rest>][.<outcome>]`. Any other name stays what it is.
pub fn plain_name(name: &str) -> Cow<'_, str> {
    let Some((base, labels)) = name.split_once(".penstock_rule.") else { return Cow::Borrowed(name) };
    let (rule, others) = labels.split_once('.').unwrap_or((labels, ""));
    let mut parts = base.splitn(4, '.');
    let mut plain: Vec<&str> = parts.by_ref().take(3).collect();
    plain.push(rule);
    plain.extend(others.strip_prefix("penstock_variant."));
    plain.extend(parts);
    plain.extend(others.strip_prefix("penstock_outcome."));
    Cow::Owned(plain.join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_go_where_the_names_of_the_wasm_modules_have_them() {
        for (labelled, name) in [
            ("server.live", "server.live"),
            (
                "wasmcustom.penstock.routes.penstock_rule.r.penstock_outcome.matched",
                "wasmcustom.penstock.routes.r.matched",
            ),
            (
                "wasmcustom.penstock.breakers.opened.penstock_rule.c.penstock_variant.v2",
                "wasmcustom.penstock.breakers.c.v2.opened",
            ),
            ("wasmcustom.penstock.decision.nanoseconds.penstock_rule.p", "wasmcustom.penstock.decision.p.nanoseconds"),
            ("wasmcustom.penstock.policy.hash.penstock_rule.p", "wasmcustom.penstock.policy.p.hash"),
        ] {
            assert_eq!(plain_name(labelled), name);
        }
    }
}
