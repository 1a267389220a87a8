//! The `penstock explain` command for the same request.

use super::question::ExplainQuestion;

/// The command line for a POSIX shell. `envoy` is the admin interface of a proxy that runs the policy.
pub fn command(question: &ExplainQuestion, envoy: Option<&str>) -> String {
    let mut words = vec!["penstock".to_owned(), "explain".to_owned()];
    // The command explains each plugin of the proxy separately.
    words.extend(match envoy {
        Some(url) => ["--from-envoy".to_owned(), quoted(url)].to_vec(),
        None => ["policy.yaml".to_owned()].to_vec(),
    });
    let mut add = |option: &str, value: &str| words.extend([option.to_owned(), quoted(value)]);
    match url(question) {
        None => add("--request", &question.request().to_string()),
        Some(url) => {
            add("--url", &url);
            if question.method != "GET" {
                add("--method", &question.method);
            }
            for (name, value) in &question.headers {
                add("--header", &format!("{name}: {value}"));
            }
            if let Some(address) = question.address() {
                add("--source-address", address);
            }
            if let Some(peer) = &question.peer {
                add("--peer", peer);
            }
            if let Some(sni) = &question.sni {
                add("--sni", sni);
            }
            if let Some(time) = question.time() {
                add("--time", &time);
            }
        }
    }
    words.join(" ")
}

/// The URL, if `--url` makes the same request from it: a client omits default ports and escapes unusual characters.
fn url(question: &ExplainQuestion) -> Option<String> {
    let scheme = question.scheme.as_deref()?;
    let usual = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => return None,
    };
    let is_plain =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~:[]/?=&%+,;@!$*".contains(&byte));
    let host = question.host.as_str();
    let is_host = !host.is_empty() && is_plain(host) && !host.contains(['/', '?', '@']) && !host.ends_with(usual);
    let names = question
        .headers
        .iter()
        .all(|(name, _)| !name.is_empty() && !name.contains(':') && !name.eq_ignore_ascii_case("host"));
    let values = question.headers.iter().all(|(_, value)| value.trim() == value);
    (is_host && names && values && question.path.starts_with('/') && is_plain(&question.path))
        .then(|| format!("{scheme}://{host}{}", question.path))
}

/// Quotes a word for a POSIX shell. Values of a request cannot contain control characters.
fn quoted(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/=+,@%".contains(&byte);
    if !word.is_empty() && word.bytes().all(is_plain) {
        return word.to_owned();
    }
    let visible: String = word.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    format!("'{}'", visible.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question() -> ExplainQuestion {
        ExplainQuestion {
            method: "POST".to_owned(),
            scheme: Some("https".to_owned()),
            host: "api.test".to_owned(),
            path: "/v1?x=1".to_owned(),
            headers: vec![("x-user".to_owned(), "it's me".to_owned())],
            source_address: Some("203.0.113.0/24".to_owned()),
            peer: Some("spiffe://a/ns/b/sa/c".to_owned()),
            at: Some(0.0),
            ..ExplainQuestion::default()
        }
    }

    #[test]
    fn it_can_be_pasted_into_a_shell() {
        assert_eq!(
            command(&question(), Some("http://127.0.0.1:9901")),
            "penstock explain --from-envoy http://127.0.0.1:9901 --url 'https://api.test/v1?x=1' --method POST \
             --header 'x-user: it'\\''s me' --source-address 203.0.113.0 --peer spiffe://a/ns/b/sa/c --time 1970-01-01T00:00:00Z"
        );
    }

    #[test]
    fn what_a_url_would_change_is_given_as_json() {
        let with = |host: &str, path: &str| ExplainQuestion {
            host: host.to_owned(),
            path: path.to_owned(),
            ..ExplainQuestion::default()
        };
        for question in [
            ExplainQuestion { scheme: Some("https".to_owned()), ..with("api.test:443", "/") },
            ExplainQuestion { scheme: Some("https".to_owned()), ..with("a'; rm -rf ~ #", "/") },
            ExplainQuestion { scheme: Some("https".to_owned()), ..with("api.test", "*") },
            with("api.test", "/"),
        ] {
            let command = command(&question, None);
            assert!(command.starts_with("penstock explain policy.yaml --request '{"), "{command}");
            assert!(!command.contains("a';"), "{command}");
        }
    }
}
