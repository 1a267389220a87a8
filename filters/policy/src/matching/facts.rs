//! Conditions on facts as written: `claims` and `metadata` of an entry.

use super::text::{Condition, text_match};
use crate::document::{At, Context, Decode, Fields, Kind, Name, Node, NonEmpty};
use crate::facts::{FactName, MetadataDocument};

/// A [`Condition`] on a claim of a verified token.
#[derive(Clone, Debug)]
pub struct ClaimCondition(pub Condition);

impl Decode for ClaimCondition {
    const KIND: Kind = Kind::Object(&["name", "type", "value", "values", "invert"]);

    fn decode(node: &Node, at: &At<'_>, cx: &mut Context) -> Option<Self> {
        let fields = Fields::open::<Self>(node, at, cx)?;
        let name = fields.get::<Name>("name", at, cx).map(|name| FactName::claim(&name));
        condition(&fields, name, at, cx).map(ClaimCondition)
    }
}

/// A [`Condition`] on metadata that an earlier filter left.
#[derive(Clone, Debug)]
pub struct MetadataCondition(pub Condition);

impl Decode for MetadataCondition {
    const KIND: Kind = Kind::Object(&["namespace", "path", "type", "value", "values", "invert"]);

    fn decode(node: &Node, at: &At<'_>, cx: &mut Context) -> Option<Self> {
        let fields = Fields::open::<Self>(node, at, cx)?;
        let namespace = fields.get::<Name>("namespace", at, cx);
        let path = fields.get::<NonEmpty<Name>>("path", at, cx);
        let place = namespace.zip(path).map(|(namespace, path)| MetadataDocument { namespace, path });
        condition(&fields, place.map(|place| FactName::metadata(&place)), at, cx).map(MetadataCondition)
    }
}

/// Reads how the fact of this name compares. Where the name is wrong the rest is read for its own mistakes.
fn condition(fields: &Fields<'_>, name: Option<FactName>, at: &At<'_>, cx: &mut Context) -> Option<Condition> {
    let invert = fields.get_or("invert", false, at, cx);
    let words = name.as_ref().map(|name| name.parts().to_string()).unwrap_or_default();
    let text = text_match(fields, words.as_bytes(), at, cx);
    Some(Condition { name: name?.into_bytes(), text: text?, invert: invert? })
}
