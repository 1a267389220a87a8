//! Paths as clients send them.

/// Removes `.` and `..` segments from a path (RFC 3986, 5.2.4), as curl and browsers do; keeps the query.
pub fn without_dots(target: &str) -> String {
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                if is_last {
                    kept.push("");
                }
            }
            segment => kept.push(segment),
        }
    }
    let path = format!("/{}", kept.join("/"));
    query.map_or_else(|| path.clone(), |query| format!("{path}?{query}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dot_segments_are_removed_from_the_path() {
        for (target, expected) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a/./b/../../c/d/..", "/c/"),
            ("/../../x", "/x"),
            ("/a/..", "/"),
            ("/a//../b/", "/a/b/"),
            ("/.well-known/...?x=/../y", "/.well-known/...?x=/../y"),
            ("/%2e%2e/a", "/%2e%2e/a"),
        ] {
            assert_eq!(without_dots(target), expected, "{target}");
        }
    }
}
