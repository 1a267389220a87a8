//! Where a module comes from: an in-toto statement with a SLSA provenance predicate (<https://slsa.dev/spec/v1.1/provenance>).
//!
//! Unsigned, so it informs and proves nothing; `cosign attest` makes a proof of it (docs/distribution.md).

use serde_json::{Value, json};

use super::package::About;

/// Its media type.
pub const MEDIA_TYPE: &str = "application/vnd.in-toto+json";

/// The statement about a file of this name and digest in hexadecimal. Its second subject is left for the form that it goes with.
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
