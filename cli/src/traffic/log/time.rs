//! Times in logs: RFC 3339, seconds or milliseconds since 1970, or a `strftime` format.

use penstock_policy::Timestamp;

/// Parses the format of `%START_TIME(form)%`; an empty format is RFC 3339.
pub fn read(text: &str, form: &str) -> Option<Timestamp> {
    match form {
        "" => Timestamp::parse(text).or_else(|| epoch(text)),
        form => strftime(text, form).or_else(|| Timestamp::parse(text)),
    }
}

/// Seconds since 1970 with decimals, or milliseconds, microseconds or nanoseconds. The unit is unambiguous for times
/// between 2001 and 2286.
fn epoch(text: &str) -> Option<Timestamp> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let number: u64 = whole.parse().ok()?;
    let scale: u64 = match whole.len() {
        10 => 1_000_000_000,
        13 => 1_000_000,
        16 => 1_000,
        19 => 1,
        _ => return None,
    };
    let below = if scale == 1_000_000_000 { format!("{fraction:0<9}").parse().ok()? } else { 0 };
    Some(Timestamp(number.checked_mul(scale)?.checked_add(below)?))
}

/// Supports `strftime` formats that determine the time completely.
fn strftime(text: &str, form: &str) -> Option<Timestamp> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let form = form.replace("%F", "%Y-%m-%d").replace("%T", "%H:%M:%S").replace("%E4Y", "%Y");
    let (mut year, mut month, mut day) = (None, None, None);
    let (mut hour, mut minute, mut second) = (0, 0, 0);
    let (mut nanos, mut seconds, mut zone) = (String::new(), None, None);
    let mut rest = text;
    let mut form = form.chars().peekable();
    while let Some(c) = form.next() {
        if c != '%' {
            rest = rest.strip_prefix(c)?;
            continue;
        }
        let width = form.next_if(char::is_ascii_digit).and_then(|c| c.to_digit(10));
        let mut number = |most: usize| {
            let length = rest.bytes().take(most).take_while(u8::is_ascii_digit).count();
            let (digits, after) = rest.split_at_checked(length)?;
            rest = after;
            Some(digits.to_owned()).filter(|digits| !digits.is_empty())
        };
        match form.next()? {
            'Y' => year = Some(number(4)?),
            'm' => month = Some(number(2)?.parse::<usize>().ok()?),
            'd' => day = Some(number(2)?),
            'H' => hour = number(2)?.parse::<u32>().ok()?,
            'M' => minute = number(2)?.parse::<u32>().ok()?,
            'S' => second = number(2)?.parse::<u32>().ok()?,
            'f' => nanos = number(width.map_or(9, |width| width as usize))?,
            's' => seconds = Some(number(10)?.parse::<u64>().ok()?),
            'b' => {
                month = Some(MONTHS.iter().position(|name| rest.starts_with(name))? + 1);
                rest = rest.get(3..)?;
            }
            'z' => {
                let sign = rest.chars().next().filter(|c| "+-".contains(*c))?;
                rest = rest.get(1..)?;
                let digits = rest.get(..4)?;
                rest = rest.get(4..)?;
                zone = Some(format!("{sign}{}:{}", digits.get(..2)?, digits.get(2..)?));
            }
            'Z' => {
                rest = rest.strip_prefix("UTC").or_else(|| rest.strip_prefix("GMT"))?;
                zone = Some("Z".to_owned());
            }
            _ => return None,
        }
    }
    if !rest.is_empty() {
        return None;
    }
    let nanos = if nanos.is_empty() { "0".to_owned() } else { nanos };
    if let Some(seconds) = seconds {
        let below: u64 = format!("{nanos:0<9}").parse().ok()?;
        return Some(Timestamp(seconds.checked_mul(1_000_000_000)?.checked_add(below)?));
    }
    // Envoy writes UTC.
    let zone = zone.unwrap_or_else(|| "Z".to_owned());
    let (year, month, day) = (year?, month?, day?);
    Timestamp::parse(&format!("{year}-{month:02}-{day:0>2}T{hour:02}:{minute:02}:{second:02}.{nanos}{zone}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_of_logs_are_read_and_others_are_not_guessed() {
        let at = Timestamp::parse("2026-01-02T03:04:05.5Z");
        for (text, form) in [
            ("2026-01-02T03:04:05.5Z", ""),
            ("2026-01-02T04:04:05.500+01:00", ""),
            ("1767323045.5", ""),
            ("1767323045500", ""),
            ("1767323045500000000", ""),
            ("2026/01/02 03:04:05.500", "%Y/%m/%d %H:%M:%S.%3f"),
            ("02/Jan/2026:03:04:05.5 +0000", "%d/%b/%Y:%T.%f %z"),
            ("1767323045.500", "%s.%3f"),
            ("1767323045500", "%s%3f"),
        ] {
            assert_eq!(read(text, form), at, "{text} {form}");
        }
        for (text, form) in [("yesterday", ""), ("12345", ""), ("03:04:05", "%T"), ("2026-01-02", "%F %T"), ("x", "%q")]
        {
            assert_eq!(read(text, form), None, "{text} {form}");
        }
    }
}
