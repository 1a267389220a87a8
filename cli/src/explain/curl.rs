//! Parses `curl` command lines, as browsers copy them.
//!
//! The result is the request that curl would send, without its own `user-agent` and `accept`. Anything that only the
//! shell or a file could provide is an error.

use anyhow::{Context as _, bail, ensure};
use base64::Engine as _;
use penstock_policy::wire::WireRequest;

use super::{paths, shell};
use crate::traffic::url;

/// Long options with a value that do not affect a policy: transport, output, other protocols.
const WITH_VALUE: &str = "abstract-unix-socket alt-svc cacert capath cert cert-type ciphers config \
    connect-timeout connect-to continue-at cookie-jar create-file-mode crlfile curves delegation dns-interface \
    dns-ipv4-addr dns-ipv6-addr dns-servers doh-url dump-header ech egd-file engine etag-compare etag-save \
    expect100-timeout expand-output ftp-account ftp-alternative-to-user ftp-method ftp-port ftp-ssl-ccc-mode \
    happy-eyeballs-timeout-ms haproxy-clientip help hostpubmd5 hostpubsha256 hsts interface ip-tos ipfs-gateway \
    keepalive-cnt keepalive-time key key-type knownhosts krb libcurl limit-rate local-port login-options mail-auth \
    mail-from mail-rcpt max-filesize max-redirs max-time netrc-file noproxy output output-dir parallel-max \
    parallel-max-host pass pinnedpubkey preproxy proto proto-default proto-redir proxy proxy-cacert proxy-capath \
    proxy-cert proxy-cert-type proxy-ciphers proxy-crlfile proxy-header proxy-key proxy-key-type proxy-pass \
    proxy-pinnedpubkey proxy-service-name proxy-tls13-ciphers proxy-tlsauthtype proxy-tlspassword proxy-tlsuser \
    proxy-user proxy1.0 pubkey quote random-file rate resolve retry retry-delay retry-max-time sasl-authzid \
    service-name signature-algorithms sigalgs socks4 socks4a socks5 socks5-gssapi-service socks5-hostname speed-limit \
    speed-time ssl-sessions stderr telnet-option tftp-blksize time-cond tls-max tls13-ciphers tlsauthtype tlspassword tlsuser \
    trace trace-ascii trace-config unix-socket upload-flags vlan-priority write-out";

/// Long options without a value that do not affect a policy.
const SWITCHES: &str = "append basic ca-native cert-status clobber compressed-ssh create-dirs crlf disable disable-eprt \
    disable-epsv disallow-username-in-url doh-cert-status doh-insecure dump-ca-embed fail fail-early fail-with-body \
    false-start follow form-escape ftp-create-dirs ftp-pasv ftp-pret ftp-skip-pasv-ip ftp-ssl-ccc ftp-ssl-control \
    ftp-ssl-reqd haproxy-protocol http0.9 http1.0 http1.1 http2 http2-prior-knowledge http3 http3-only \
    ignore-content-length include insecure ipv4 ipv6 junk-session-cookies list-only location location-trusted \
    mail-rcpt-allowfails manual metalink mptcp netrc netrc-optional out-null parallel parallel-immediate post301 post302 \
    post303 progress-bar progress-meter proxy-anyauth proxy-basic proxy-ca-native proxy-digest proxy-http2 \
    proxy-insecure proxy-negotiate proxy-ntlm proxy-ssl-allow-beast proxy-ssl-auto-client-cert proxy-tlsv1 proxytunnel \
    raw remote-header-name remote-name remote-name-all remote-time remove-on-error retry-all-errors retry-connrefused \
    sasl-ir show-error show-headers silent skip-existing socks5-basic socks5-gssapi socks5-gssapi-nec ssl \
    ssl-allow-beast ssl-auto-client-cert ssl-no-revoke ssl-reqd ssl-revoke-best-effort sslv2 sslv3 styled-output \
    suppress-connect-headers tcp-fastopen tcp-nodelay tftp-no-options tls-earlydata tlsv1 tlsv1.0 tlsv1.1 tlsv1.2 \
    tlsv1.3 tr-encoding trace-ids trace-time use-ascii verbose version xattr";

/// The long name of a short option with a value.
fn long_name(short: char) -> Option<&'static str> {
    Some(match short {
        'X' => "request",
        'H' => "header",
        'd' => "data",
        'F' => "form",
        'A' => "user-agent",
        'e' => "referer",
        'b' => "cookie",
        'u' => "user",
        'T' => "upload-file",
        'o' => "output",
        'x' => "proxy",
        'U' => "proxy-user",
        'P' => "ftp-port",
        't' => "telnet-option",
        'm' => "max-time",
        'c' => "cookie-jar",
        'D' => "dump-header",
        'E' => "cert",
        'K' => "config",
        'r' => "range",
        'w' => "write-out",
        'y' => "speed-time",
        'Y' => "speed-limit",
        'C' => "continue-at",
        'Q' => "quote",
        'z' => "time-cond",
        ':' => "next",
        _ => return None,
    })
}

/// The options parsed so far.
#[derive(Default)]
struct Sending {
    url: Option<String>,
    method: Option<String>,
    headers: Vec<(String, String)>,
    /// Names that `-H 'name:'` removes, with priority over every default.
    removed: Vec<String>,
    data: Vec<String>,
    has_form: bool,
    is_get: bool,
    is_head: bool,
    is_upload: bool,
    /// `--globoff`: brackets in the URL are sent unchanged.
    is_literal: bool,
    /// `--path-as-is`: dots in the path are sent unchanged.
    keeps_dots: bool,
    /// The credentials are only sent with a second request, after the server's challenge.
    is_challenged: bool,
    /// `--request-target`: the path that is sent.
    target: Option<String>,
    /// `--url-query`: additions to the query.
    query: Vec<String>,
}

/// Parses the request of a command line.
///
/// # Errors
/// Returns an error when the line is not a curl command, or has no URL.
pub fn request(line: &str) -> anyhow::Result<WireRequest> {
    let line = without_prompt(line)?;
    let words = shell::words(line)?;
    let is_before = |word: &String| {
        let is_assignment = word.split_once('=').is_some_and(|(name, _)| {
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        });
        is_assignment || ["sudo", "time", "env", "exec"].contains(&word.as_str())
    };
    let mut words = words.into_iter().skip_while(is_before).peekable();
    ensure!(
        words
            .next_if(|word| ["curl", "curl.exe"].contains(&word.rsplit(['/', '\\']).next().unwrap_or_default()))
            .is_some(),
        "a curl command line begins with curl: such as curl -H 'x-user: 7' https://shop.example.com/cart"
    );
    let mut sending = Sending::default();
    while let Some(word) = words.next() {
        if let Some(long) = word.strip_prefix("--") {
            let (name, value) = match long.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (long, None),
            };
            let mut value =
                || value.clone().or_else(|| words.next()).with_context(|| format!("curl's --{name} needs a value"));
            sending.long(name, &mut value)?;
        } else if let Some(shorts) = word.strip_prefix('-').filter(|shorts| !shorts.is_empty()) {
            let mut shorts = shorts.chars();
            while let Some(short) = shorts.next() {
                let Some(name) = long_name(short) else {
                    sending.flag(short)?;
                    continue;
                };
                // `-XPOST` and `-X POST` mean the same.
                let rest: String = shorts.by_ref().collect();
                let given = if rest.is_empty() { words.next() } else { Some(rest) };
                sending.long(name, &mut || given.clone().with_context(|| format!("curl's -{short} needs a value")))?;
            }
        } else {
            sending.url(word)?;
        }
    }
    sending.finish()
}

/// Removes a shell prompt in front of the command.
///
/// # Errors
/// Returns an error when the line is a command other than curl.
fn without_prompt(line: &str) -> anyhow::Result<&str> {
    const MENU: &str = "choose \"Copy as cURL (bash)\" or \"Copy as cURL (cmd)\" in the browser's menu";
    let line = line.trim_start();
    let line = ["$ ", "# ", "% ", "> "].iter().find_map(|prompt| line.strip_prefix(prompt)).unwrap_or(line);
    let is_powershell = ["Invoke-WebRequest", "Invoke-RestMethod", "$session", "`\n", "`\r\n"];
    ensure!(
        !is_powershell.iter().any(|part| line.contains(part)),
        "this is PowerShell, not a curl command line: {MENU}"
    );
    let is_script = ["fetch(", "await fetch("].iter().any(|begin| line.starts_with(begin));
    ensure!(!is_script, "this is JavaScript, not a curl command line: {MENU}");
    Ok(line)
}

impl Sending {
    fn flag(&mut self, short: char) -> anyhow::Result<()> {
        match short {
            'G' => self.is_get = true,
            'I' => self.is_head = true,
            'g' => self.is_literal = true,
            short if "#0123456BJLMNORSVZafhijklnpqsv".contains(short) => {}
            _ => bail!("curl has no option -{short}"),
        }
        Ok(())
    }

    fn url(&mut self, url: String) -> anyhow::Result<()> {
        ensure!(self.url.is_none(), "the curl command line has two URLs: explain one request at a time");
        self.url = Some(url);
        Ok(())
    }

    fn long(&mut self, name: &str, value: &mut dyn FnMut() -> anyhow::Result<String>) -> anyhow::Result<()> {
        match name {
            "url" => self.url(value()?)?,
            "request" => self.method = Some(value()?),
            "header" => self.header(&value()?)?,
            "data" | "data-raw" | "data-ascii" | "data-binary" => self.data.push(value()?),
            "data-urlencode" => self.data.push(url_encoded(&value()?)),
            "url-query" => {
                let value = value()?;
                let query = value.strip_prefix('+').map_or_else(|| url_encoded(&value), str::to_owned);
                self.query.push(query);
            }
            "request-target" => self.target = Some(value()?),
            "range" => {
                let range = format!("bytes={}", value()?);
                self.set("range", &range);
            }
            "json" => {
                self.data.push(value()?);
                self.set("content-type", "application/json");
                self.set("accept", "application/json");
            }
            "form" | "form-string" => {
                value()?;
                self.has_form = true;
            }
            "user-agent" => self.set("user-agent", &value()?),
            "referer" => self.set("referer", &value()?),
            "cookie" => {
                let cookie = value()?;
                // Without `=`, the value is the name of a file.
                ensure!(cookie.contains('='), "curl's --cookie {cookie:?} is a file: write the cookies, name=value");
                self.set("cookie", &cookie);
            }
            "user" => {
                let credentials = base64::engine::general_purpose::STANDARD.encode(value()?);
                self.set("authorization", &format!("Basic {credentials}"));
            }
            "oauth2-bearer" => {
                let token = value()?;
                self.set("authorization", &format!("Bearer {token}"));
            }
            "compressed" => self.set("accept-encoding", "deflate, gzip, br, zstd"),
            "upload-file" => {
                value()?;
                self.is_upload = true;
            }
            "get" => self.is_get = true,
            "head" => self.is_head = true,
            "globoff" => self.is_literal = true,
            "path-as-is" => self.keeps_dots = true,
            "digest" | "ntlm" | "ntlm-wb" | "negotiate" | "anyauth" => self.is_challenged = true,
            "aws-sigv4" => {
                value()?;
                self.is_challenged = true;
            }
            "variable" => {
                bail!("curl's --variable {} is for --expand options: write the values in their places", value()?)
            }
            "config" => bail!("curl's --config {} has more options: write them here", value()?),
            "next" => bail!("the curl command line has two requests: explain one at a time"),
            name if WITH_VALUE.split_ascii_whitespace().any(|known| known == name) => drop(value()?),
            name if SWITCHES.split_ascii_whitespace().any(|known| known == name.trim_start_matches("no-")) => {}
            "no-keepalive" | "no-buffer" | "no-sessionid" | "no-alpn" | "no-npn" | "no-compressed" => {}
            name if name.starts_with("expand-") => {
                bail!(
                    "curl's --{name} puts variables in: write the option without `expand-`, with the values in their places"
                )
            }
            name => bail!("curl has no option --{name}"),
        }
        Ok(())
    }

    fn header(&mut self, line: &str) -> anyhow::Result<()> {
        match (line.split_once(':'), line.strip_suffix(';')) {
            (Some((name, value)), _) if value.trim().is_empty() => self.removed.push(name.trim().to_ascii_lowercase()),
            (Some((name, value)), _) => self.headers.push((name.trim().to_owned(), value.trim().to_owned())),
            (None, Some(name)) => self.headers.push((name.trim().to_owned(), String::new())),
            (None, None) if line.starts_with('@') => bail!("curl's --header {line:?} is a file: write its headers"),
            (None, None) => bail!("curl's --header {line:?} is not `name: value`"),
        }
        Ok(())
    }

    /// Sets a header that an option implies, replacing the value of an earlier option.
    fn set(&mut self, name: &str, value: &str) {
        self.headers.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
        self.headers.push((name.to_owned(), value.to_owned()));
    }

    fn finish(mut self) -> anyhow::Result<WireRequest> {
        let mut url = self.url.context("the curl command line has no URL")?;
        if !url.contains("://") {
            url.insert_str(0, "http://");
        }
        // The first bracket may start an IPv6 address.
        let after_host = url
            .split_once("://[")
            .map_or(url.as_str(), |(_, rest)| rest.split_once(']').map_or(rest, |(_, rest)| rest));
        ensure!(
            self.is_literal || !after_host.contains(['[', '{']),
            "curl reads the brackets in {url:?} as several URLs: add --globoff if they are part of it, or write one of them"
        );
        let mut request = url::request(&url)?;
        let has_body = !self.data.is_empty() || self.has_form;
        if self.is_get && !self.data.is_empty() {
            let file = self.data.iter().find(|data| data.starts_with('@'));
            ensure!(file.is_none(), "curl's --data {:?} is a file: write its content", file.map_or("", String::as_str));
            request.path.push(if request.path.contains('?') { '&' } else { '?' });
            request.path.push_str(&self.data.join("&"));
        }
        for query in &self.query {
            request.path.push(if request.path.contains('?') { '&' } else { '?' });
            request.path.push_str(query);
        }
        if !self.keeps_dots {
            request.path = paths::without_dots(&request.path);
        }
        if let Some(target) = self.target {
            request.path = target;
        }
        if self.is_challenged {
            self.headers.retain(|(name, value)| name != "authorization" || !value.starts_with("Basic "));
        }
        let default = match () {
            () if self.is_head => "HEAD",
            () if self.is_get => "GET",
            () if self.is_upload => "PUT",
            () if has_body => "POST",
            () => "GET",
        };
        request.method = self.method.unwrap_or_else(|| default.to_owned());
        let given = |name: &str| self.headers.iter().any(|(other, _)| other.eq_ignore_ascii_case(name));
        if has_body && !self.is_get && !given("content-type") {
            let kind = if self.has_form { "multipart/form-data" } else { "application/x-www-form-urlencoded" };
            request.headers.push(("content-type".to_owned(), kind.to_owned()));
        }
        for (name, value) in &self.headers {
            url::add_header(&mut request, name, value);
        }
        request.headers.retain(|(name, _)| !self.removed.contains(name));
        Ok(request)
    }
}

/// A value of `--data-urlencode`: `name=content`, `=content` or `content`; the content is encoded.
fn url_encoded(value: &str) -> String {
    let (name, content) = value.split_once('=').map_or(("", value), |(name, content)| (name, content));
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let byte = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    let content: String = content.bytes().map(byte).collect();
    if name.is_empty() { content } else { format!("{name}={content}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(line: &str) -> String {
        let request = request(line).unwrap_or_else(|error| panic!("{line}: {error:#}"));
        let headers: Vec<String> = request.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        format!("{} {} {} [{}]", request.method, request.authority, request.path, headers.join("; "))
    }

    #[test]
    fn a_copied_command_line_is_the_request_that_curl_would_send() {
        for (line, expected) in [
            ("curl a.test", "GET a.test / []"),
            ("curl -sSLk https://a.test/x -o /dev/null", "GET a.test /x []"),
            ("curl -XPOST -H'X-A: 1' -H 'x-b;' a.test:8080/y", "POST a.test:8080 /y [x-a: 1; x-b: ]"),
            (
                "curl 'https://a.test/' \\\n  -H 'cookie: a=1' \\\n  --compressed",
                "GET a.test / [cookie: a=1; accept-encoding: deflate, gzip, br, zstd]",
            ),
            ("curl -d x=1 --data-raw y=2 a.test", "POST a.test / [content-type: application/x-www-form-urlencoded]"),
            ("curl -G -d x=1 -d y=2 'a.test/?z=0'", "GET a.test /?z=0&x=1&y=2 []"),
            (
                "curl --json '{\"a\":1}' -X PUT a.test",
                "PUT a.test / [content-type: application/json; accept: application/json]",
            ),
            ("curl -I --header=Host:b.test https://a.test", "HEAD b.test / []"),
            ("curl -u user:pass a.test -H Content-Type:", "GET a.test / [authorization: Basic dXNlcjpwYXNz]"),
            ("/usr/bin/curl --max-time 5 --url https://a.test/../x", "GET a.test /x []"),
            ("curl --path-as-is https://a.test/../x", "GET a.test /../x []"),
            ("curl 'https://a.test/a/./b/../c?d=/../e'", "GET a.test /a/c?d=/../e []"),
            ("$ curl -s a.test/x | jq . > out 2>/dev/null", "GET a.test /x []"),
            ("curl a.test/x 2>&1 >>out -X PUT && curl b.test", "PUT a.test /x []"),
            ("A=1 sudo curl a.test/x; echo done", "GET a.test /x []"),
            ("curl --digest -u a:b --out-null --no-progress-meter a.test", "GET a.test / []"),
            ("curl -H \"price: \\$5 a$ b\" a.test", "GET a.test / [price: $5 a$ b]"),
            ("curl -sS#4 -Lk --http3-only --no-keepalive a.test", "GET a.test / []"),
            ("curl -T f a.test", "PUT a.test / []"),
            (
                "curl 'https://a.test/' -H $'Cookie: FOO=BAR\\u0021BAZ' --data-raw $'it\\'s'",
                "POST a.test / [content-type: application/x-www-form-urlencoded; cookie: FOO=BAR!BAZ]",
            ),
            (
                "curl ^\"https://a.test/cart?a=1^&b=2^\" ^\n  -H ^\"accept: text/html^\" ^\n  -b ^\"A=B^!^\"",
                "GET a.test /cart?a=1&b=2 [accept: text/html; cookie: A=B!]",
            ),
            ("curl -U user:pw -x http://proxy:3128 a.test", "GET a.test / []"),
            ("curl --keepalive-time 5 --proto-redir =https --ip-tos CS1 a.test", "GET a.test / []"),
            ("curl --request-target /raw?q --url-query 'x=a b' a.test/y", "GET a.test /raw?q []"),
            ("curl --url-query 'x=a b' --url-query +z=%31 a.test/y?q", "GET a.test /y?q&x=a%20b&z=%31 []"),
            ("curl -G --data-urlencode 'q=ä&b' a.test -r 0-9", "GET a.test /?q=%C3%A4%26b [range: bytes=0-9]"),
            ("curl.exe a.test", "GET a.test / []"),
            ("curl -g 'a.test/?q=[1]'", "GET a.test /?q=[1] []"),
            ("curl 'http://[::1]:80/x'", "GET [::1] /x []"),
        ] {
            assert_eq!(sent(line), expected, "{line}");
        }
    }

    #[test]
    fn a_line_that_is_not_a_curl_command_is_refused_with_the_reason() {
        for (line, message) in [
            ("wget a.test", "begins with curl"),
            ("curl", "no URL"),
            ("curl 'a", "open single quote"),
            ("curl a.test --next b.test", "two requests"),
            ("curl -H nothing a.test", "name: value"),
            ("curl a.test b.test", "two URLs"),
            ("curl a.test -X", "needs a value"),
            ("curl ftp://a.test", "not an http"),
            ("curl -b jar a.test", "is a file"),
            ("curl -G -d @f a.test", "is a file"),
            ("curl --url a.test --url b.test", "two URLs"),
            ("curl -K conf a.test", "--config conf has more options"),
            ("curl -H \"authorization: Bearer $TOKEN\" a.test", "`$TOKEN`"),
            ("curl a.test/${ID}/x", "`${ID}`"),
            ("curl -d \"$(cat f)\" a.test", "`$(cat f)`"),
            ("curl a.test/`id`", "`id`"),
            ("curl --variable a=b --expand-url 'https://a.test/{{a}}'", "--variable"),
            ("curl -H @headers a.test", "is a file"),
            ("curl --foo bar a.test", "no option --foo"),
            ("curl -W a.test", "no option -W"),
            ("Invoke-WebRequest -UseBasicParsing -Uri \"https://a.test\"", "PowerShell"),
            ("curl -Uri a.test `\n-Method GET", "PowerShell"),
            ("fetch(\"https://a.test\", {})", "JavaScript"),
            ("curl https://bücher.test/", "xn--"),
            ("curl a.test/{x,y}", "--globoff"),
            ("curl 'a.test/?q=[1-3]'", "--globoff"),
        ] {
            let error = format!("{:#}", request(line).unwrap_err());
            assert!(error.contains(message), "{line}: {error}");
        }
    }
}
