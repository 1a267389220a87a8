//! Settings of a running Envoy that break a guarantee of its policies, found in its own configuration dump.

use anyhow::Result;
use penstock_integration::{Bootstrap, Listener, Route, WasmFilter};
use serde_json::json;

#[test]
fn settings_that_break_a_guarantee_are_found_in_the_dump_of_a_running_envoy() -> Result<()> {
    let hops = json!({"settings": {"sourceAddress": {"trustedHops": 1}}, "routes": {"default": "a"}});
    let egress = json!({"egress": {"rules": [{"name": "r", "to": [{"host": "a.test"}], "paths": [{"value": "/"}]}]}});
    let strict = json!({"headers_with_underscores_action": "REJECT_REQUEST"});
    let start = |is_right: bool| {
        let mut bootstrap = Bootstrap::new()?;
        let discovered = bootstrap.discovered(WasmFilter::new("suite", &hops)?.named("hops"))?;
        let edge = Listener::new("edge")
            .discovered(discovered)
            .manager("use_remote_address", json!(is_right))
            .route(Route::any());
        let mut out = Listener::new("out")
            .wasm(&WasmFilter::new("egress-allowlist", &egress)?.named("egress"))
            .manager("common_http_protocol_options", strict.clone())
            .route(Route::any());
        if !is_right {
            out = out.manager("merge_slashes", json!(true));
        }
        bootstrap.listener(edge).listener(out).start()
    };
    let envoy = start(true)?;
    assert_eq!(penstock::status::warnings(envoy.admin().get("/config_dump")?.as_str().into()), [""; 0]);
    let mut envoy = start(false)?;
    let warnings = penstock::status::warnings(envoy.admin().get("/config_dump")?.as_str().into());
    for part in ["`use_remote_address` is not true", "`merge_slashes` changes the path"] {
        assert_eq!(warnings.iter().filter(|warning| warning.contains(part)).count(), 1, "{part}: {warnings:#?}");
    }
    assert_eq!(warnings.len(), 2, "{warnings:#?}");
    envoy.check_healthy()
}
