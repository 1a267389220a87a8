//! The messages of `envoy.service.ratelimit.v3.RateLimitService`, as far as Penstock writes and reads them.
//!
//! Field numbers are those of Envoy's API: `service/ratelimit/v3/rls.proto`, `extensions/common/ratelimit/v3/ratelimit.proto`,
//! `type/v3/ratelimit_unit.proto`, `config/core/v3/base.proto`. Fields that are not here are skipped when read.

use prost::Message;

use crate::document::{frames_message, is_token};

/// Larger answers are no answers: one for a request has a few hundred bytes.
const LARGEST: usize = 64 * 1024;

/// `RateLimitRequest`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct RateLimitRequest {
    #[prost(string, tag = "1")]
    pub(super) domain: String,
    #[prost(message, repeated, tag = "2")]
    pub(super) descriptors: Vec<Descriptor>,
    /// For all descriptors that say nothing else. Older services know only this one.
    #[prost(uint32, tag = "3")]
    pub(super) hits_addend: u32,
}

/// `RateLimitDescriptor`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Descriptor {
    #[prost(message, repeated, tag = "1")]
    pub(super) entries: Vec<Entry>,
    #[prost(message, optional, tag = "2")]
    pub(super) limit: Option<Override>,
    /// A `google.protobuf.UInt64Value`.
    #[prost(message, optional, tag = "3")]
    pub(super) hits_addend: Option<u64>,
}

/// `RateLimitDescriptor.Entry`.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Entry {
    #[prost(string, tag = "1")]
    pub(super) key: String,
    #[prost(string, tag = "2")]
    pub(super) value: String,
}

/// `RateLimitDescriptor.RateLimitOverride`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct Override {
    #[prost(uint32, tag = "1")]
    pub(super) requests_per_unit: u32,
    /// SECOND 1, MINUTE 2, HOUR 3, DAY 4.
    #[prost(int32, tag = "2")]
    pub(super) unit: i32,
}

/// `RateLimitResponse.Code`.
pub(super) const OK: i32 = 1;
pub(super) const OVER_LIMIT: i32 = 2;

/// `RateLimitResponse`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct RateLimitResponse {
    #[prost(int32, tag = "1")]
    pub(super) overall_code: i32,
    /// One for each descriptor, in their order.
    #[prost(message, repeated, tag = "2")]
    pub(super) statuses: Vec<DescriptorStatus>,
    #[prost(message, repeated, tag = "3")]
    response_headers_to_add: Vec<HeaderValue>,
    #[prost(message, repeated, tag = "4")]
    request_headers_to_add: Vec<HeaderValue>,
}

/// `RateLimitResponse.DescriptorStatus`.
#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct DescriptorStatus {
    #[prost(int32, tag = "1")]
    pub(super) code: i32,
    #[prost(uint32, tag = "3")]
    pub(super) limit_remaining: u32,
    #[prost(message, optional, tag = "4")]
    duration_until_reset: Option<Duration>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
struct Duration {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

/// `HeaderValue`; the two forms of the value are read as bytes.
#[derive(Clone, PartialEq, Eq, Message)]
struct HeaderValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    raw_value: Vec<u8>,
}

impl DescriptorStatus {
    /// Nanoseconds until the counter begins anew; 0 when the service does not say.
    pub(super) fn until_reset(&self) -> u64 {
        let Some(Duration { seconds, nanos }) = self.duration_until_reset else { return 0 };
        let seconds = u64::try_from(seconds).unwrap_or(0);
        seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(nanos).unwrap_or(0))
    }
}

impl RateLimitResponse {
    /// Reads an answer; `None`: it is none.
    pub(super) fn read(bytes: &[u8]) -> Option<RateLimitResponse> {
        let bytes = Some(bytes).filter(|bytes| bytes.len() <= LARGEST)?;
        RateLimitResponse::decode(bytes).ok().filter(|answer| [OK, OVER_LIMIT].contains(&answer.overall_code))
    }

    /// An answer with this code for all descriptors and nothing else.
    #[cfg(any(test, feature = "wire"))]
    pub(super) fn plain(overall_code: i32) -> RateLimitResponse {
        RateLimitResponse { overall_code, ..RateLimitResponse::default() }
    }

    /// The headers that the response is to carry, but for those that are no headers or would break its framing.
    pub(super) fn response_headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.response_headers_to_add.iter().filter_map(HeaderValue::usable)
    }

    /// The same for the request that goes on.
    pub(super) fn request_headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.request_headers_to_add.iter().filter_map(HeaderValue::usable)
    }
}

impl HeaderValue {
    fn usable(&self) -> Option<(&str, &[u8])> {
        let value = if self.value.is_empty() { &self.raw_value } else { &self.value };
        let is_text = value.iter().all(|&byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f));
        let name = self.key.as_str();
        let is_header = is_token(name.as_bytes()) && !name.eq_ignore_ascii_case("host") && !frames_message(name);
        (is_header && is_text).then_some((name, value))
    }
}
