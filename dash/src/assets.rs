//! The page's files, included in the binary, so that it works without a network.

/// A file of the page: its path, its media type, its content.
type Asset = (&'static str, &'static str, &'static str);

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Every file in `web/`, which a test verifies.
pub const ASSETS: [Asset; 20] = [
    ("/", "text/html; charset=utf-8", include_str!("../web/index.html")),
    ("/style.css", "text/css; charset=utf-8", include_str!("../web/style.css")),
    ("/icon.svg", "image/svg+xml", include_str!("../web/icon.svg")),
    ("/api.js", SCRIPT, include_str!("../web/api.js")),
    ("/app.js", SCRIPT, include_str!("../web/app.js")),
    ("/badge.js", SCRIPT, include_str!("../web/badge.js")),
    ("/canaries.js", SCRIPT, include_str!("../web/canaries.js")),
    ("/decisions.js", SCRIPT, include_str!("../web/decisions.js")),
    ("/dom.js", SCRIPT, include_str!("../web/dom.js")),
    ("/format.js", SCRIPT, include_str!("../web/format.js")),
    ("/graph.js", SCRIPT, include_str!("../web/graph.js")),
    ("/history.js", SCRIPT, include_str!("../web/history.js")),
    ("/inspect.js", SCRIPT, include_str!("../web/inspect.js")),
    ("/list.js", SCRIPT, include_str!("../web/list.js")),
    ("/problems.js", SCRIPT, include_str!("../web/problems.js")),
    ("/proxies.js", SCRIPT, include_str!("../web/proxies.js")),
    ("/rules.js", SCRIPT, include_str!("../web/rules.js")),
    ("/spark.js", SCRIPT, include_str!("../web/spark.js")),
    ("/table.js", SCRIPT, include_str!("../web/table.js")),
    ("/theme.js", SCRIPT, include_str!("../web/theme.js")),
];

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_page_is_served() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("web");
        let name = |entry: std::io::Result<std::fs::DirEntry>| format!("/{}", entry.unwrap().file_name().display());
        let mut files: Vec<String> = std::fs::read_dir(folder).unwrap().map(name).collect();
        files.sort();
        let mut served: Vec<&str> =
            ASSETS.iter().map(|(path, ..)| if *path == "/" { "/index.html" } else { path }).collect();
        served.sort_unstable();
        assert_eq!(files, served);
    }

    #[test]
    fn what_a_file_asks_for_is_served_too() {
        for (path, _, text) in ASSETS {
            let asked = ["from './", "href=\"", "src=\""].iter().flat_map(|start| text.split(start).skip(1));
            let asked = asked.filter_map(|rest| rest.split(['\'', '"']).next()).filter(|name| !name.starts_with('#'));
            for name in asked {
                assert!(ASSETS.iter().any(|(path, ..)| *path == format!("/{name}")), "{path} asks for {name}");
            }
        }
    }

    #[test]
    fn the_page_needs_no_other_server_and_no_inline_code() {
        let html = ["innerHTML", "outerHTML", "insertAdjacentHTML"];
        let inline = ["://", "eval(", "style=\"", "<style", "<script>", " onclick=", " onload=", " onsubmit="];
        for (path, _, text) in ASSETS {
            let text = text.replace("http://www.w3.org/2000/svg", "");
            for forbidden in html.iter().chain(&inline) {
                assert!(!text.contains(forbidden), "{path} has {forbidden}");
            }
        }
    }
}
