//! The page, embedded: everything that a browser may ask for besides the API.

/// One file of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asset {
    /// Its path in the URL, without the first slash; the page itself is the empty one.
    pub path: &'static str,
    /// Its media type, with the charset of text.
    pub content_type: &'static str,
    /// Its bytes.
    pub body: &'static [u8],
}

const HTML: &str = "text/html; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const IMAGE: &str = "image/svg+xml";

macro_rules! assets {
    ($($path:literal = $file:literal: $content_type:expr),* $(,)?) => {
        /// Every file of the page.
        pub const ASSETS: &[Asset] = &[$(Asset {
            path: $path,
            content_type: $content_type,
            body: include_bytes!(concat!("../web/", $file)),
        }),*];
    };
}

assets! {
    "" = "index.html": HTML,
    "style.css" = "style.css": STYLE,
    "icon.svg" = "icon.svg": IMAGE,
    "api.js" = "api.js": SCRIPT,
    "app.js" = "app.js": SCRIPT,
    "badge.js" = "badge.js": SCRIPT,
    "canaries.js" = "canaries.js": SCRIPT,
    "dom.js" = "dom.js": SCRIPT,
    "format.js" = "format.js": SCRIPT,
    "graph.js" = "graph.js": SCRIPT,
    "list.js" = "list.js": SCRIPT,
    "problems.js" = "problems.js": SCRIPT,
    "proxies.js" = "proxies.js": SCRIPT,
    "rules.js" = "rules.js": SCRIPT,
    "spark.js" = "spark.js": SCRIPT,
    "table.js" = "table.js": SCRIPT,
}

/// The file at a path of the URL (`/`, `/style.css`), if there is one.
pub fn find(path: &str) -> Option<&'static Asset> {
    let path = path.strip_prefix('/')?;
    ASSETS.iter().find(|asset| asset.path == path)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn text(asset: &Asset) -> &'static str {
        std::str::from_utf8(asset.body).unwrap()
    }

    #[test]
    fn every_file_of_the_page_is_embedded() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("web");
        for entry in fs::read_dir(folder).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let path = if name == "index.html" { "/".to_owned() } else { format!("/{name}") };
            assert!(find(&path).is_some(), "{name} is not in ASSETS");
        }
        assert_eq!(find("/../Cargo.toml"), None);
        assert_eq!(find("style.css"), None);
    }

    #[test]
    fn what_a_file_asks_for_is_embedded_too() {
        for asset in ASSETS {
            let found: Vec<_> = ["from './", "href=\"", "src=\""]
                .iter()
                .flat_map(|start| text(asset).split(start).skip(1))
                .filter_map(|rest| rest.split(['\'', '"']).next())
                .filter(|name| !name.starts_with('#'))
                .collect();
            for name in found {
                assert!(find(&format!("/{name}")).is_some(), "{} asks for {name}", asset.path);
            }
        }
    }

    #[test]
    fn the_page_needs_no_other_server_and_no_inline_code() {
        for asset in ASSETS {
            let text = text(asset).replace("http://www.w3.org/2000/svg", "");
            for forbidden in [
                "://",
                "//cdn",
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "eval(",
                "style=\"",
                "<style",
                "onclick=",
            ] {
                assert!(!text.contains(forbidden), "{} has {forbidden}", asset.path);
            }
            assert!(!text.contains("<script>"), "{} has an inline script", asset.path);
        }
    }
}
