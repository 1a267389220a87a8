//! An AdmissionReview, and the response to it (`admission.k8s.io/v1`).

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

/// The API server truncates longer warnings, possibly inside a character.
const LONGEST_WARNING: usize = 250;

/// The limit for all warnings together is 4,096 bytes.
const MOST_WARNINGS: usize = 15;

/// The API server's request.
#[derive(Debug, Deserialize)]
pub struct Review {
    /// The request.
    pub request: ReviewRequest,
}

/// The operation on an object.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReviewRequest {
    /// The id, which the response repeats.
    pub uid: String,
    /// The kind of the object.
    pub kind: ObjectKind,
    /// The namespace of the object.
    #[serde(default)]
    pub namespace: String,
    /// The name; empty when the server generates it.
    #[serde(default)]
    pub name: String,
    /// The operation: CREATE, UPDATE, DELETE or CONNECT.
    pub operation: String,
    /// The user.
    #[serde(default)]
    pub user_info: User,
    /// The new object.
    #[serde(default)]
    pub object: Option<Box<RawValue>>,
    /// The old object.
    #[serde(default)]
    pub old_object: Option<Box<RawValue>>,
    /// Whether this is a dry run.
    #[serde(default)]
    pub dry_run: Option<bool>,
}

/// A kind of object.
#[derive(Debug, Deserialize)]
pub struct ObjectKind {
    /// The group, such as `extensions.istio.io`.
    #[serde(default)]
    pub group: String,
    /// The kind, such as `WasmPlugin`.
    pub kind: String,
}

/// The user.
#[derive(Debug, Default, Deserialize)]
pub struct User {
    /// The name.
    #[serde(default)]
    pub username: String,
}

/// The verdict on an object.
#[derive(Clone, Debug, Default)]
pub struct ReviewAnswer {
    /// The reason of the refusal; `None` when it is admitted.
    pub refusal: Option<String>,
    /// The warnings.
    pub warnings: Vec<String>,
}

impl ReviewAnswer {
    /// A refusal.
    pub fn refused(why: String) -> ReviewAnswer {
        ReviewAnswer { refusal: Some(why), warnings: Vec::new() }
    }

    /// The review to send back.
    pub fn review(&self, uid: &str) -> Value {
        let mut response = Map::new();
        response.insert("uid".to_owned(), json!(uid));
        response.insert("allowed".to_owned(), json!(self.refusal.is_none()));
        if let Some(why) = &self.refusal {
            response.insert("status".to_owned(), json!({"code": 422, "reason": "Invalid", "message": why}));
        }
        let mut warnings: Vec<String> = self.warnings.iter().take(MOST_WARNINGS).map(|text| cut(text)).collect();
        let more = self.warnings.len().saturating_sub(MOST_WARNINGS);
        if more > 0 {
            warnings.push(format!("and {more} more: see penstock check"));
        }
        if !warnings.is_empty() {
            response.insert("warnings".to_owned(), json!(warnings));
        }
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
    }
}

/// One line with a maximum length.
fn cut(text: &str) -> String {
    let line = text.replace('\n', " ");
    let Some((end, _)) = line.char_indices().find(|(at, c)| at + c.len_utf8() > LONGEST_WARNING) else { return line };
    format!("{}…", line.get(..end).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_fit_into_what_the_api_server_passes_on() {
        let answer = ReviewAnswer { refusal: None, warnings: vec!["ä".repeat(1000); 40] };
        let review = answer.review("1");
        let warnings = review["response"]["warnings"].as_array().unwrap();
        assert_eq!(warnings.len(), MOST_WARNINGS + 1);
        assert!(warnings.iter().all(|warning| warning.as_str().unwrap().len() <= 256));
        assert!(warnings.iter().map(|warning| warning.as_str().unwrap().len()).sum::<usize>() <= 4096);
    }
}
