//! The cost of a request: how much of a limit's quota it uses.

use super::document::Cost;
use crate::request::Request;

/// How a limit finds a request's cost.
#[derive(Clone, Debug)]
pub(super) struct CostRule {
    header: Option<Box<str>>,
    default: u32,
    most: u32,
    /// The response header with the cost; `default` is then reserved beforehand.
    response_header: Option<Box<str>>,
}

impl CostRule {
    pub(super) fn new(document: Option<Cost>) -> CostRule {
        match document {
            Some(cost) => CostRule {
                default: cost.beforehand(),
                header: cost.header.map(|name| name.0),
                most: cost.max.map_or(1_000_000_000, |max| max.0),
                response_header: cost.response_header.map(|name| name.0),
            },
            None => CostRule { header: None, default: 1, most: 1, response_header: None },
        }
    }

    /// The cost, and whether the header had a value that is not a cost: not a whole number from 1, or repeated. A
    /// number above the allowed maximum counts as the maximum and is not an error.
    pub(super) fn of(&self, request: &Request<'_>) -> (u32, bool) {
        let Some(header) = &self.header else { return (self.default, false) };
        let mut values = request.values(header.as_bytes());
        match (values.next(), values.next()) {
            (None, _) => (self.default, false),
            (Some(value), None) => match self.parse(value) {
                Some(cost) if cost > 0 => (cost, false),
                _ => (self.default, true),
            },
            (Some(_), Some(_)) => (self.default, true),
        }
    }

    /// The request header with the cost.
    pub(super) fn header(&self) -> Option<&str> {
        self.header.as_deref()
    }

    /// The response header with the cost.
    pub(super) fn response_header(&self) -> Option<&str> {
        self.response_header.as_deref()
    }

    /// The cost in the response; `None`: missing or unusable. A response may cost nothing.
    pub(super) fn of_response(&self, value: &[u8]) -> Option<u32> {
        self.parse(value)
    }

    fn parse(&self, value: &[u8]) -> Option<u32> {
        let digits = value.trim_ascii();
        if digits.is_empty() {
            return None;
        }
        let mut cost = 0_u64;
        for byte in digits {
            if !byte.is_ascii_digit() {
                return None;
            }
            cost = cost.saturating_mul(10).saturating_add(u64::from(byte - b'0'));
        }
        Some(u32::try_from(cost).unwrap_or(u32::MAX).min(self.most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{HeaderName, Whole};
    use crate::request::Header;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn a_cost_is_a_whole_number_from_one_and_anything_else_is_the_default() {
        let document = Cost {
            header: Some(HeaderName("x-cost".into())),
            default: Whole(2),
            max: Some(Whole(100)),
            response_header: None,
            reserve: None,
        };
        let rule = CostRule::new(Some(document));
        for (values, expected) in [
            (&[][..], (2, false)),
            (&["7"], (7, false)),
            (&[" 100 "], (100, false)),
            (&["101"], (100, false)),
            (&["99999999999999999999999999"], (100, false)),
            (&["007"], (7, false)),
            (&["0"], (2, true)),
            (&[""], (2, true)),
            (&["-1"], (2, true)),
            (&["+1"], (2, true)),
            (&["1.5"], (2, true)),
            (&["1e3"], (2, true)),
            (&["one"], (2, true)),
            (&["1", "1"], (2, true)),
        ] {
            let headers: Vec<Header<'_>> = values.iter().map(|v: &&str| (&b"x-cost"[..], v.as_bytes())).collect();
            assert_eq!(rule.of(&Request::new(&headers)), expected, "{values:?}");
        }
    }

    #[test]
    fn without_a_header_the_cost_is_the_same_for_all() {
        assert_eq!(CostRule::new(None).of(&Request::new(&[])), (1, false));
        let five = Cost { header: None, default: Whole(5), max: None, response_header: None, reserve: None };
        assert_eq!(CostRule::new(Some(five)).of(&Request::new(&[])), (5, false));
    }
}
