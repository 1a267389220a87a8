//! The origin of a module: an in-toto statement with a SLSA provenance predicate
//! (<https://slsa.dev/spec/v1.1/provenance>).
//!
//! The statement is unsigned, so it is information and not a proof; `cosign attest` makes it a proof
//! (docs/distribution.md).

use serde_json::{Value, json};

use super::package::About;

/// Its media type.
pub const MEDIA_TYPE: &str = "application/vnd.in-toto+json";

/// The statement about a file with this name and hexadecimal digest. The form that it is attached to is added as its
/// second subject.
pub fn statement(about: &About, file: &str, sha256: &str, builder: &str) -> Value {
    let mut source = json!({"uri": format!("git+{}", about.source)});
    if let (Some(source), Some(revision)) = (source.as_object_mut(), &about.revision) {
        source.insert("digest".to_owned(), json!({"gitCommit": revision}));
    }
    json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": file, "digest": {"sha256": sha256}}, null],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": format!("{}/blob/main/docs/distribution.md#how-it-is-built", about.source),
                "externalParameters": {"target": "make build", "module": about.name, "version": about.version},
                "resolvedDependencies": [source],
            },
            "runDetails": {"builder": {"id": builder}},
        },
    })
}
