//! Parses URLs as clients do. Nothing is normalized, because a policy must see unusual forms.

use anyhow::{Context as _, ensure};
use http::Uri;
use penstock_policy::wire::WireRequest;

/// A GET of `url` as a proxy would receive it.
///
/// # Errors
/// Returns an error when it is not an absolute http or https URL.
pub fn request(url: &str) -> anyhow::Result<WireRequest> {
    // Clients do not send the fragment.
    let url = url.split('#').next().unwrap_or_default();
    let form = || format!("{url:?} is not a URL such as https://api.example.com/v1?x=1");
    ensure!(!has_other_scheme(url), "{url:?} is no request of HTTP: its scheme is neither http nor https");
    ensure!(
        url.is_empty() || url.starts_with('/') || url.contains("://"),
        "{url:?} has no scheme: write https://{url}"
    );
    let uri: Uri = match url.parse() {
        Ok(uri) => uri,
        Err(error) => match url.chars().find(|c| c.is_whitespace() || c.is_control() || !c.is_ascii()) {
            Some(odd) if !odd.is_ascii() && is_in_host(url, odd) => anyhow::bail!(
                "{url:?} has {odd:?} in its host name: write the name in its ASCII form, which begins with xn--"
            ),
            Some(odd) => anyhow::bail!("{url:?} has {odd:?}, which is not sent as it is: write it as {}", escaped(odd)),
            None => return Err(error).with_context(form),
        },
    };
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else { anyhow::bail!(form()) };
    ensure!(matches!(scheme, "http" | "https"), "{url:?} is not an http or https URL");
    // Clients convert userinfo to a header, and drop the scheme's default port.
    let host = authority.as_str().rsplit('@').next().unwrap_or_default();
    let default = if scheme == "https" { ":443" } else { ":80" };
    Ok(WireRequest {
        method: "GET".to_owned(),
        scheme: Some(scheme.to_owned()),
        authority: host.strip_suffix(default).unwrap_or(host).to_owned(),
        path: match uri.query() {
            Some(query) => format!("{}?{query}", uri.path()),
            None => uri.path().to_owned(),
        },
        ..WireRequest::default()
    })
}

/// Whether the first occurrence of a character is before the path.
fn is_in_host(url: &str, c: char) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split(['/', '?']).next().is_some_and(|host| host.contains(c))
}

/// Percent-encodes a character.
fn escaped(c: char) -> String {
    let mut bytes = [0; 4];
    c.encode_utf8(&mut bytes).bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// Adds a header as a client would send it: `host` sets the authority, and names that start with `:` are not headers.
pub fn add_header(request: &mut WireRequest, name: &str, value: &str) {
    let name = name.to_ascii_lowercase();
    match name.as_str() {
        "host" => request.authority = value.to_owned(),
        name if name.starts_with(':') => {}
        _ => request.headers.push((name, value.to_owned())),
    }
}

/// Whether it is a URL such as `data:text/plain,x`, and not a host with a port.
fn has_other_scheme(url: &str) -> bool {
    url.split_once(':').is_some_and(|(scheme, rest)| {
        let is_scheme = !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-".contains(&b));
        is_scheme && !rest.starts_with("//") && !rest.starts_with(|c: char| c.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart_and_otherwise_left_alone() {
        for (url, authority, path) in [
            ("https://a.test", "a.test", "/"),
            ("https://a.test:443/x?y=1#z", "a.test", "/x?y=1"),
            ("http://a.test:443/x", "a.test:443", "/x"),
            ("http://u:p@A.Test:80/a/../%2e//b;c", "A.Test", "/a/../%2e//b;c"),
            ("https://0x7f.1/", "0x7f.1", "/"),
            ("https://[::1]:8443/", "[::1]:8443", "/"),
            ("https://a.test?x=1", "a.test", "/?x=1"),
        ] {
            let request = request(url).unwrap();
            assert_eq!((&*request.authority, &*request.path), (authority, path), "{url}");
        }
        let said = |url: &str| request(url).unwrap_err().to_string();
        assert_eq!(said("a.test/x"), "\"a.test/x\" has no scheme: write https://a.test/x");
        for url in ["data:image/png;base64,AA==", "about:blank", "blob:https://a.test/7"] {
            assert!(said(url).ends_with("its scheme is neither http nor https"), "{}", said(url));
        }
        assert_eq!(said("localhost:8080/x"), "\"localhost:8080/x\" has no scheme: write https://localhost:8080/x");
        assert!(said("https://a/b c").ends_with("write it as %20"), "{}", said("https://a/b c"));
        for url in ["", "a.test", "/x", "ftp://a.test/", "https://", "https://a b/"] {
            assert!(request(url).is_err(), "{url}");
        }
    }
}
