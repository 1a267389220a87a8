//! The objects that are read by hand.

use serde_json::{Value, json};

use super::definitions::{Definitions, Describe, Field};
use crate::canaries::{CanaryDocument, Stickiness, StickinessList};
use crate::document::{Decode, HeaderName, Name, Named, NonEmpty};
use crate::egress::EgressDocument;
use crate::matching::{ClaimCondition, HeaderCondition, MetadataCondition, PairCondition, PairName, TextMatchType};
use crate::policy_document::PolicyDocument;
use crate::rate_limits::LimitDocument;
use crate::routes::RoutesDocument;
use crate::settings::Settings;

/// The name of the whole document.
pub(super) const WHOLE: &str = "policy";

/// The schema of the whole document, a reference.
pub(super) fn whole(schema: &mut Definitions) -> Value {
    let doc = "A Penstock policy. All sections are optional, and run in this order.";
    schema.object::<PolicyDocument>(WHOLE, doc, |schema| {
        vec![
            schema.field::<Option<Settings>>("settings", "Settings for all sections."),
            schema.field::<Option<EgressDocument>>(
                "egress",
                "An allowlist for outgoing requests. Everything else is denied.",
            ),
            schema.field::<Option<Named<LimitDocument>>>(
                "rateLimits",
                "Rate limits. A request must pass every limit that applies to it.",
            ),
            schema.field::<Option<RoutesDocument>>(
                "routes",
                "Rules that choose the route. The first rule that matches is used.",
            ),
            schema.field::<Option<Named<CanaryDocument>>>(
                "canaries",
                "Canaries. The first one that matches chooses a variant, unless a rule of `routes` has chosen a route.",
            ),
        ]
    })
}

impl Describe for StickinessList {
    fn describe(schema: &mut Definitions) -> Value {
        let one = Stickiness::describe(schema);
        json!({"anyOf": [one, {"type": "array", "minItems": 1, "items": one}]})
    }
}

/// The object of a header, query parameter or cookie, whose name is an `N`.
fn condition<T: Decode, N: Describe>(schema: &mut Definitions, key: &str, doc: &str) -> Value {
    condition_on::<T>(schema, key, doc, |schema| vec![schema.field::<N>("name", "Its name.")])
}

/// The object of a condition on what `fields` name.
fn condition_on<T: Decode>(
    schema: &mut Definitions,
    key: &str,
    doc: &str,
    fields: impl FnOnce(&mut Definitions) -> Vec<Field>,
) -> Value {
    let of = |types: Value| json!({"properties": {"type": {"enum": types}}, "required": ["type"]});
    schema.object_with::<T>(
        key,
        doc,
        |schema| {
            let mut fields = fields(schema);
            fields.extend([
                schema.field::<TextMatchType>("type", "How its value is compared.").or(&TextMatchType::Exact),
                schema.field::<Option<String>>(
                    "value",
                    "The value to compare with. With type RegularExpression: an expression in RE2 syntax that must match the whole value (up to 8 KiB).",
                ),
                schema.field::<Option<NonEmpty<String>>>("values", "With type In: the values to compare with."),
                schema.field::<bool>("invert", "Invert the condition: it holds if no value matches, also if there is no value.").or(&false),
            ]);
            fields
        },
        json!({
            "if": of(json!(["In"])),
            "then": {"required": ["values"], "properties": {"value": false}},
            "else": {
                "properties": {"values": false},
                "if": of(json!(["Present"])),
                "then": {"properties": {"value": false}},
                "else": {
                    "required": ["value"],
                    "if": of(json!(["Prefix", "Suffix", "Contains"])),
                    "then": {"properties": {"value": {"minLength": 1}}},
                },
            },
        }),
    )
}

impl Describe for HeaderCondition {
    fn describe(schema: &mut Definitions) -> Value {
        let doc = "A condition on a header. If the header occurs several times, one matching value is enough.";
        condition::<Self, HeaderName>(schema, "matching.HeaderCondition", doc)
    }
}

impl Describe for PairCondition {
    fn describe(schema: &mut Definitions) -> Value {
        let doc = "A condition on a query parameter or a cookie.";
        condition::<Self, PairName>(schema, "matching.PairCondition", doc)
    }
}

impl Describe for ClaimCondition {
    fn describe(schema: &mut Definitions) -> Value {
        let doc = "A condition on a claim of a verified token. `a.b` is the field `b` of the object `a`. A list matches if one of its \
                   elements matches. Numbers and booleans are compared in their JSON form.";
        condition::<Self, Name>(schema, "matching.ClaimCondition", doc)
    }
}

impl Describe for MetadataCondition {
    fn describe(schema: &mut Definitions) -> Value {
        let doc = "A condition on a value that an earlier filter stored in the dynamic metadata. Lists, numbers and booleans \
                   are compared as in claims.";
        condition_on::<Self>(schema, "matching.MetadataCondition", doc, |schema| {
            vec![
                schema
                    .field::<Name>("namespace", "Its namespace, usually the name of the filter that stored the value."),
                schema.field::<NonEmpty<Name>>("path", "The path of fields to the value."),
            ]
        })
    }
}
