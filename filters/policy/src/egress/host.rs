//! Host patterns of an allowlist: those of `hostnames`, with stricter rules and advice of their own.

use super::authority::ends_in_number;
use crate::document::{At, Context, Decode, Kind, Node, wrong_kind};
use crate::matching::{HostPattern, is_name};

/// An exact name, or `*.` and a name of at least two labels.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EgressHost(pub HostPattern);

impl Decode for EgressHost {
    const KIND: Kind = Kind::Text;
    const EXPECTED: &'static str = "a string: a host name";

    fn decode(node: &Node, at: &At<'_>, cx: &mut Context) -> Option<Self> {
        let Node::String(text) = node else { return wrong_kind::<Self>(node, at, cx) };
        let (message, help) = match special(text) {
            None => return HostPattern::decode(node, at, cx).map(EgressHost),
            Some(problem) => problem,
        };
        cx.problem(at, node, message, help);
        None
    }
}

/// What is wrong with the pattern for an allowlist, and what would be right.
fn special(text: &str) -> Option<(&'static str, Option<String>)> {
    let name = text.strip_prefix("*.").unwrap_or(text);
    if is_name(name.as_bytes()) && !ends_in_number(name.as_bytes()) && (text == name || name.as_bytes().contains(&b'.'))
    {
        return None;
    }
    if matches!(text, "*" | "*." | "*.*") {
        return Some(("covers every host", Some("name the hosts, or a star over a name: *.example.com".to_owned())));
    }
    if let Some(address) = address(text) {
        let widest = if address.is_ipv4() { 32 } else { 128 };
        return Some(("is an IP address", Some(format!("write cidr: {address}/{widest} instead of host"))));
    }
    if let Some((host, port)) = text.split_once(':')
        && !text.contains('/')
        && !port.contains(':')
    {
        return Some(("has a port", Some(format!("write host: {host}, ports: [{port}]"))));
    }
    if !text.is_ascii() {
        let help = a_labels(text).map(|ascii| format!("write the A-label form: {ascii}"));
        return Some(("is not ASCII", help.or_else(|| Some("write the A-label form (xn--…) of the name".to_owned()))));
    }
    if !name.is_empty() && !name.starts_with('.') && ends_in_number(name.strip_suffix('.').unwrap_or(name).as_bytes()) {
        return Some(("ends in a number, which no host name does", Some("write an address as cidr".to_owned())));
    }
    if text != name && !name.is_empty() && !name.contains('.') && !name.contains('*') {
        let help = format!("name the domains: *.example.{name}");
        return Some(("is a wildcard over a single label", Some(help)));
    }
    None
}

/// The address that `text` writes, with or without brackets or a prefix length.
fn address(text: &str) -> Option<std::net::IpAddr> {
    let text = text.split('/').next()?;
    text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text).parse().ok()
}

/// The A-label form of a name, for advice only: lower case and Punycode (RFC 3492), no further mapping.
fn a_labels(text: &str) -> Option<String> {
    let labels: Option<Vec<String>> = text
        .split(['.', '\u{3002}'])
        .map(|label| {
            let label = label.to_lowercase();
            if label.is_ascii() { Some(label) } else { punycode(&label).map(|ascii| format!("xn--{ascii}")) }
        })
        .collect();
    labels.map(|labels| labels.join("."))
}

/// RFC 3492 §6.3.
fn punycode(label: &str) -> Option<String> {
    const DIGITS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let mut out: String = label.chars().filter(char::is_ascii).collect();
    let basic = u32::try_from(out.len()).ok()?;
    let total = u32::try_from(label.chars().count()).ok()?;
    if basic > 0 {
        out.push('-');
    }
    let (mut n, mut delta, mut bias, mut handled) = (128u32, 0u32, 72u32, basic);
    while handled < total {
        let next = label.chars().map(u32::from).filter(|&c| c >= n).min()?;
        delta = delta.checked_add((next - n).checked_mul(handled + 1)?)?;
        n = next;
        for c in label.chars().map(u32::from) {
            if c < n {
                delta = delta.checked_add(1)?;
            }
            if c == n {
                let mut q = delta;
                let mut k = 36u32;
                loop {
                    let t = k.saturating_sub(bias).clamp(1, 26);
                    let digit = if q < t { q } else { t + (q - t) % (36 - t) };
                    out.push(char::from(*DIGITS.get(usize::try_from(digit).ok()?)?));
                    if q < t {
                        break;
                    }
                    q = (q - t) / (36 - t);
                    k += 36;
                }
                bias = adapt(delta, handled + 1, handled == basic);
                delta = 0;
                handled += 1;
            }
        }
        delta = delta.checked_add(1)?;
        n += 1;
    }
    Some(out)
}

/// RFC 3492 §6.1.
fn adapt(delta: u32, points: u32, first: bool) -> u32 {
    let mut delta = if first { delta / 700 } else { delta / 2 };
    delta += delta / points;
    let mut k = 0;
    while delta > 455 {
        delta /= 35;
        k += 36;
    }
    k + 36 * delta / (delta + 38)
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn error(text: &str) -> String {
        let mut cx = Context::new(String::new(), 0);
        assert!(EgressHost::decode(&Node::String(text.into()), &At::Root, &mut cx).is_none(), "{text}");
        cx.into_problems().first().map(ToString::to_string).unwrap_or_default()
    }

    #[test]
    fn a_refused_host_names_the_form_that_would_be_right() {
        for (text, help) in [
            ("*", "*.example.com"),
            ("*.", "*.example.com"),
            ("*.*", "*.example.com"),
            ("*.com", "*.example.com"),
            (".example.com", "write *.example.com"),
            ("a.*.com", "*.example.com"),
            ("ex*mple.com", "*.example.com"),
            ("*.*.example.com", "*.example.com"),
            ("Example.com", "write example.com"),
            ("example.com.", "write example.com"),
            ("éxämple.com", "write the A-label form: xn--xmple-gra7a.com"),
            ("Bücher.example", "xn--bcher-kva.example"),
            ("*.bücher.example", "write the A-label form: *.xn--bcher-kva.example"),
            ("他们为什么不说中文.test", "xn--ihqwcrb4cv8a8dqg056pqjye.test"),
            ("https://example.com/x", "write example.com"),
            ("example.com:443", "write host: example.com, ports: [443]"),
            ("example.com/path", "write example.com"),
            ("203.0.113.7", "write cidr: 203.0.113.7/32"),
            ("203.0.113.0/24", "write cidr: "),
            ("[::1]", "write cidr: ::1/128"),
            ("::1", "write cidr: ::1/128"),
            ("127.1", "as cidr"),
            ("0x7f.1", "as cidr"),
            ("foo.0x4", "as cidr"),
            ("*.1.2.3.4", "as cidr"),
            ("", "shop.example.com"),
        ] {
            let message = error(text);
            assert!(message.contains(help), "{text}: {message}");
        }
        for text in ["a\0b", "exa mple.com", "a..b", "-a.test", "a@b.test", "a%2eb.test", "*a.test", "a.b.*"] {
            error(text);
        }
    }
}
