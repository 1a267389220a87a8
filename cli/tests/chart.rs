//! The files that the chart copies equal the project's, and its values match its schema. `make e2e` shows that Helm
//! renders it and an API server accepts it.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may panic")]

use std::fs;
use std::path::{Path, PathBuf};

use penstock::yaml::Located;
use penstock::yaml_text;
use serde_json::{Value, json};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn files_that_the_chart_copies_are_current() {
    for (copy, original) in [
        ("rules.yaml", "observability/rules.yaml"),
        ("legacy-names.yaml", "observability/legacy-names.yaml"),
        ("grafana-dashboard.json", "observability/grafana-dashboard.json"),
        ("admission-policy.yaml", "deploy/admission-policy/admission-policy.yaml"),
    ] {
        let copy = root().join("deploy/helm/penstock/files").join(copy);
        let same = fs::read(&copy).unwrap() == fs::read(root().join(original)).unwrap();
        assert!(same, "{} is out of date: copy {original}", copy.display());
    }
}

#[test]
fn the_values_are_what_their_schema_says_and_unknown_ones_are_not() {
    let chart = root().join("deploy/helm/penstock");
    let schema: Value = serde_json::from_slice(&fs::read(chart.join("values.schema.json")).unwrap()).unwrap();
    let schema = jsonschema::draft7::new(&schema).unwrap();
    let values =
        yaml_text::value(&Located::read(&fs::read_to_string(chart.join("values.yaml")).unwrap()).unwrap().node);
    let errors: Vec<String> =
        schema.iter_errors(&values).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert_eq!(errors, [] as [&str; 0]);
    for (path, value) in [
        ("/webhook/replica", json!(3)),
        ("/webhook/failurePolicy", json!("fail")),
        ("/image/digest", json!("latest")),
        ("/ceilings/a", json!({"policy": {}})),
        ("/plugins/a", json!({"platform": "nginx", "namespace": "a", "module": "suite", "policy": {"routes": {}}})),
    ] {
        let mut wrong = values.clone();
        let (parent, field) = path.rsplit_once('/').unwrap();
        wrong.pointer_mut(parent).unwrap()[field] = value;
        assert!(!schema.is_valid(&wrong), "{path}");
    }
}
