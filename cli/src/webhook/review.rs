//! An AdmissionReview, and its answer (`admission.k8s.io/v1`).

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

/// Longer warnings are cut by the API server, in the middle of a character.
const LONGEST_WARNING: usize = 250;

/// All warnings together may have 4,096 bytes.
const MOST_WARNINGS: usize = 15;

/// What the API server asks.
#[derive(Debug, Deserialize)]
pub struct Review {
    /// The request.
    pub request: ReviewRequest,
}

/// One object that somebody writes.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReviewRequest {
    /// To be returned.
    pub uid: String,
    /// Of the object.
    pub kind: ObjectKind,
    /// Of the object.
    #[serde(default)]
    pub namespace: String,
    /// Empty where the server makes one.
    #[serde(default)]
    pub name: String,
    /// CREATE, UPDATE, DELETE, CONNECT.
    pub operation: String,
    /// Who writes.
    #[serde(default)]
    pub user_info: User,
    /// As it is to be.
    #[serde(default)]
    pub object: Option<Box<RawValue>>,
    /// As it is.
    #[serde(default)]
    pub old_object: Option<Box<RawValue>>,
    /// Whether nothing is to be kept.
    #[serde(default)]
    pub dry_run: Option<bool>,
}

/// A kind of object.
#[derive(Debug, Deserialize)]
pub struct ObjectKind {
    /// Such as `extensions.istio.io`.
    #[serde(default)]
    pub group: String,
    /// Such as `WasmPlugin`.
    pub kind: String,
}

/// Who writes.
#[derive(Debug, Default, Deserialize)]
pub struct User {
    /// The name.
    #[serde(default)]
    pub username: String,
}

/// The verdict on an object.
#[derive(Clone, Debug, Default)]
pub struct ReviewAnswer {
    /// Why it is refused.
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

/// One line that is not too long.
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
