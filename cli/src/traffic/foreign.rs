//! Access logs of other products. Their lines are not guessed at: what makes requests of them is said instead.

/// The combined format, as nginx, Apache and Traefik write it.
const COMBINED: &str = "this is the combined log format (nginx, Apache, Traefik), which does not say the host. Log what a policy decides by, in \
    nginx `log_format penstock '$remote_addr [$time_iso8601] $request_method $host $request_uri';`, and add --log-format \
    '%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% [%START_TIME%] %REQ(:METHOD)% %REQ(:AUTHORITY)% %REQ(:PATH)%'";

/// Traefik's JSON.
const TRAEFIK: &str = "this is an access log of Traefik: make requests of it with jq -c '{method: .RequestMethod, authority: .RequestHost, \
    path: .RequestPath, scheme: .RequestScheme, time: .StartUTC, sourceAddress: .ClientHost}' FILE";

/// AWS's Application Load Balancer.
const ALB: &str = "this is an access log of AWS's load balancer (ALB): make requests of it with sed -E \
    's|^[^ ]+ ([^ ]+) [^ ]+ ([^ ]+):[0-9]+ .* \"([A-Z]+) (https?)://([^/ ]+):[0-9]+([^ ]*) [^\"]*\" .*|{\"time\":\"\\1\",\"sourceAddress\":\"\\2\",\"method\":\"\\3\",\"scheme\":\"\\4\",\"authority\":\"\\5\",\"path\":\"\\6\"}|' FILE";

/// AWS's CloudFront, standard logs.
const CLOUDFRONT: &str = "this is an access log of CloudFront: make requests of it with awk -F'\\t' \
    '!/^#/ {print \"{\\\"time\\\":\\\"\" $1 \"T\" $2 \"Z\\\",\\\"sourceAddress\\\":\\\"\" $5 \"\\\",\\\"method\\\":\\\"\" $6 \"\\\",\\\"scheme\\\":\\\"\" $17 \"\\\",\\\"authority\\\":\\\"\" $16 \"\\\",\\\"path\\\":\\\"\" $8 ($12 == \"-\" ? \"\" : \"?\" $12) \"\\\"}\"}' FILE";

/// What makes requests of a line of another product's log; `None`: it is none that is known.
pub fn advice(line: &[u8]) -> Option<&'static str> {
    let text = str::from_utf8(line).ok()?;
    if text.starts_with('{') {
        let is_traefik =
            ["\"RequestMethod\"", "\"RequestHost\"", "\"RequestPath\""].iter().all(|key| text.contains(key));
        return is_traefik.then_some(TRAEFIK);
    }
    if text.starts_with("#Version:") || text.starts_with("#Fields:") {
        return text.get(..200).unwrap_or(text).contains("x-edge-location").then_some(CLOUDFRONT).or_else(|| {
            // The first of its two lines of comments does not name the columns.
            (text.trim_end() == "#Version: 1.0").then_some(CLOUDFRONT)
        });
    }
    let mut words = text.split(' ');
    let (kind, _, balancer) = (words.next()?, words.next()?, words.next()?);
    if ["http", "https", "h2", "grpcs", "ws", "wss"].contains(&kind) && balancer.starts_with("app/") {
        return Some(ALB);
    }
    is_combined(text).then_some(COMBINED)
}

/// `… [01/Nov/2026:10:00:00 +0000] "GET / HTTP/1.1" 200 …`
fn is_combined(text: &str) -> bool {
    let has_time = |time: &str| {
        let mut parts = time.split(['/', ':']);
        let is_number = |part: Option<&str>| part.is_some_and(|part| part.bytes().all(|byte| byte.is_ascii_digit()));
        is_number(parts.next())
            && parts
                .next()
                .is_some_and(|month| month.len() == 3 && month.bytes().all(|byte| byte.is_ascii_alphabetic()))
            && is_number(parts.next())
    };
    text.split_once(" [").and_then(|(_, rest)| rest.split_once("] \"")).is_some_and(|(time, rest)| {
        has_time(time) && rest.split('"').next().is_some_and(|request| request.contains(" HTTP/"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OF_ALB: &str = r#"https 2026-11-01T10:00:00.000000Z app/lb/50dc 192.0.2.7:2817 10.0.0.1:80 0.086 0.048 0.037 200 200 0 57 "GET https://www.example.com:443/x?y=1 HTTP/1.1" "curl/8" ECDHE TLSv1.3 arn:x "Root=1" "www.example.com" "arn:y" 1 2026-11-01T10:00:00Z "forward" "-" "-""#;
    const OF_CLOUDFRONT: &str = "2026-11-01\t10:00:00\tLAX1\t239\t192.0.2.7\tGET\td1.cloudfront.net\t/x\t200\t-\tcurl\ty=1\t-\tHit\tid\twww.example.com\thttps\t23";

    /// What the command of a message, run by a shell, makes of a line.
    fn made(advice: &str, line: &str) -> String {
        let command = advice.split_once("with ").unwrap().1.strip_suffix(" FILE").unwrap();
        let mut child = std::process::Command::new("sh")
            .args(["-c", command])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), format!("{line}\n").as_bytes()).unwrap();
        String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
    }

    #[test]
    fn logs_of_others_are_known_and_what_is_advised_makes_requests_of_them() {
        for (line, advised) in [
            (r#"203.0.113.9 - - [01/Nov/2026:10:00:00 +0000] "GET /x HTTP/1.1" 200 612 "-" "curl/8""#, Some(COMBINED)),
            (
                r#"www.a.test:443 203.0.113.9 - bob [01/Nov/2026:10:00:00 +0000] "GET /x HTTP/1.1" 200 12"#,
                Some(COMBINED),
            ),
            (
                r#"10.0.0.1 - - [01/Nov/2026:10:00:00 +0000] "GET /x HTTP/1.1" 200 12 "-" "-" 1 "r@docker" "-" 2ms"#,
                Some(COMBINED),
            ),
            (r#"{"ClientHost":"10.0.0.1","RequestHost":"a","RequestMethod":"GET","RequestPath":"/x"}"#, Some(TRAEFIK)),
            (OF_ALB, Some(ALB)),
            ("#Version: 1.0", Some(CLOUDFRONT)),
            ("#Fields: date time x-edge-location sc-bytes", Some(CLOUDFRONT)),
            ("#Fields: date time cs-method", None),
            ("", None),
            ("a b c", None),
            (r#"x [01/Nov/2026:10:00:00 +0000] "hello""#, None),
            (r#"{"method":"GET"}"#, None),
        ] {
            assert_eq!(advice(line.as_bytes()), advised, "{line}");
        }
        for request in [made(ALB, OF_ALB), made(CLOUDFRONT, OF_CLOUDFRONT)] {
            let request = super::super::request(request.as_bytes()).unwrap();
            assert_eq!((&*request.method, &*request.authority, &*request.path), ("GET", "www.example.com", "/x?y=1"));
            assert!(request.time.is_some() && request.source_address.is_some());
        }
    }
}
