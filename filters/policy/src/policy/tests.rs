use super::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

#[test]
fn a_policy_can_be_shared_by_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Policy<Suite>>();
    shared::<Policy<crate::module::RateLimit>>();
}

fn error(json: &str, module: Module) -> String {
    match Node::from_json(json.as_bytes()) {
        Ok(node) => check(&node, module).unwrap_err().to_string(),
        Err(_) => Policy::<Suite>::from_json(json.as_bytes()).unwrap_err().to_string(),
    }
}

#[test]
fn a_module_refuses_a_foreign_section_and_says_whose_it_is() {
    let message = error(r#"{"routes":{},"egress":{"rules":[]}}"#, Module::HeaderRouting);
    assert!(message.contains("egress: is not run by the header-routing module"), "{message}");
    assert!(message.contains("move it to the policy of the egress-allowlist module"), "{message}");
}

#[test]
fn a_single_module_refuses_a_policy_without_its_section() {
    let message = error("{}", Module::EgressAllowlist);
    assert_eq!(message, "egress: is required: it is the only section that the egress-allowlist module runs");
    assert!(Policy::<Suite>::from_json(b"{}").is_ok());
}

#[test]
fn what_is_no_document_is_refused_in_one_line() {
    assert!(error("", Module::Suite).starts_with("the configuration is empty"));
    assert!(error(" \n", Module::Suite).starts_with("the configuration is empty"));
    assert!(error("routes:", Module::Suite).starts_with("not JSON: "));
    assert!(error("[]", Module::Suite).starts_with("[]: is a list, expected an object"));
    assert!(error("null", Module::Suite).contains("the document is empty; expected an object: a policy has"));
    assert!(Policy::<Suite>::from_json(b"{\"routes\":\xff}").unwrap_err().to_string().starts_with("not JSON"));
}

#[test]
fn unknown_sections_are_refused_with_the_nearest_name() {
    assert_eq!(
        error(r#"{"route":{}}"#, Module::Suite),
        "route: unknown field `route`; expected one of: settings, egress, rateLimits, routes, canaries; did you mean `routes`?"
    );
}
