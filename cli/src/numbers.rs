//! Numbers and addresses among the options: what is wrong with one says what would be right.

use std::net::SocketAddr;

/// More than any list that a command shows has; for options that say how many to show.
pub const MANY: u64 = 1_000_000;

/// Reads a whole number from `least` to `most`, for clap.
pub fn whole<T: TryFrom<u64>>(least: u64, most: u64) -> impl Fn(&str) -> Result<T, String> + Clone {
    move |text| {
        let number = text.trim().parse().ok().filter(|number| (least..=most).contains(number));
        let wrong = || format!("write a whole number from {least} to {most}");
        number.and_then(|number| T::try_from(number).ok()).ok_or_else(wrong)
    }
}

/// Reads a number from `least` to `most`, for clap.
pub fn number(least: f64, most: f64) -> impl Fn(&str) -> Result<f64, String> + Clone {
    move |text| {
        let number = text.trim().parse().ok().filter(|number| *number >= least && *number <= most);
        number.ok_or_else(|| format!("write a number from {least} to {most}"))
    }
}

/// Reads an address to listen on.
pub fn listen_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "write an IP address with a port, such as 127.0.0.1:9911 or [::1]:9911".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_says_what_would_be_right() {
        let port = whole::<u16>(1, 65_535);
        assert_eq!(port("443"), Ok(443));
        for wrong in ["0", "65536", "x", "-1", "1.5", "", "0x50", "99999999999999999999999"] {
            assert_eq!(port(wrong), Err("write a whole number from 1 to 65535".to_owned()), "{wrong}");
        }
        let seed = whole::<u64>(0, u64::MAX);
        assert_eq!(seed("1e3"), Err("write a whole number from 0 to 18446744073709551615".to_owned()));
        let shown = whole::<usize>(0, MANY);
        assert_eq!(shown("99999999999999999999999"), Err("write a whole number from 0 to 1000000".to_owned()));
        assert_eq!(number(0.1, 100.0)("99.9"), Ok(99.9));
        for wrong in ["0", "-1", "100.1", "NaN", "inf", "x"] {
            assert_eq!(number(0.1, 100.0)(wrong), Err("write a number from 0.1 to 100".to_owned()), "{wrong}");
        }
        assert!(listen_address("localhost:80").is_err() && listen_address("127.0.0.1").is_err());
    }
}
