//! The page, in the binary: it works without a network.

/// The path, the type, and the content of each file.
pub const ASSETS: [(&str, &str, &str); 6] = [
    ("/", "text/html; charset=utf-8", include_str!("../web/index.html")),
    ("/style.css", "text/css; charset=utf-8", include_str!("../web/style.css")),
    ("/app.js", "text/javascript; charset=utf-8", include_str!("../web/app.js")),
    ("/dom.js", "text/javascript; charset=utf-8", include_str!("../web/dom.js")),
    ("/graph.js", "text/javascript; charset=utf-8", include_str!("../web/graph.js")),
    ("/sections.js", "text/javascript; charset=utf-8", include_str!("../web/sections.js")),
];
