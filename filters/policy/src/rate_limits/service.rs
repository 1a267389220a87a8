//! The messages of `envoy.service.ratelimit.v3.RateLimitService`, as far as Penstock writes and reads them.
//!
//! Field numbers are those of Envoy's API: `service/ratelimit/v3/rls.proto`, `extensions/common/ratelimit/v3/ratelimit.proto`,
//! `type/v3/ratelimit_unit.proto`, `config/core/v3/base.proto`. Hand-written because a library makes `rate-limit.wasm`
//! larger than it may be: see `docs/decisions.md`. The encoding is that of <https://protobuf.dev/programming-guides/encoding>.

use crate::document::{frames_message, is_token};
use crate::protobuf::{FieldValue, MessageFields, put_bytes, put_number};
use crate::redirection::redirects_request;

/// Larger responses are refused: one for a request has a few hundred bytes.
const LARGEST: usize = 64 * 1024;

/// `RateLimitDescriptor`, serialised piece by piece.
#[derive(Clone, Debug)]
pub(super) struct Descriptor {
    /// The serialised entries.
    pub(super) entries: Vec<u8>,
    pub(super) requests_per_unit: u32,
    /// `envoy.type.v3.RateLimitUnit`: SECOND 1, MINUTE 2, HOUR 3, DAY 4.
    pub(super) unit: u8,
    pub(super) hits_addend: u32,
    /// Whether the hits are given back.
    pub(super) is_negative: bool,
}

impl Descriptor {
    /// A descriptor without entries.
    pub(super) fn new(requests_per_unit: u32, unit: u8, hits_addend: u32) -> Descriptor {
        Descriptor { entries: Vec::new(), requests_per_unit, unit, hits_addend, is_negative: false }
    }

    /// The next entry.
    #[cold]
    pub(super) fn entry(&mut self, key: &str, value: &str) {
        let mut entry = Vec::with_capacity(key.len() + value.len() + 8);
        put_bytes(&mut entry, 1, key.as_bytes());
        put_bytes(&mut entry, 2, value.as_bytes());
        put_bytes(&mut self.entries, 1, &entry);
    }

    #[cold]
    fn write(&self) -> Vec<u8> {
        let mut message = self.entries.clone();
        let mut limit = Vec::new();
        put_number(&mut limit, 1, self.requests_per_unit.into());
        put_number(&mut limit, 2, self.unit.into());
        put_bytes(&mut message, 2, &limit);
        // A `google.protobuf.UInt64Value`.
        let mut hits = Vec::new();
        put_number(&mut hits, 1, self.hits_addend.into());
        put_bytes(&mut message, 3, &hits);
        if self.is_negative {
            put_number(&mut message, 4, 1);
        }
        message
    }
}

/// Writes a `RateLimitRequest`.
#[cold]
pub(super) fn request<'d>(domain: &str, descriptors: impl Iterator<Item = &'d Descriptor>) -> Vec<u8> {
    let mut message = Vec::new();
    put_bytes(&mut message, 1, domain.as_bytes());
    let mut hits = 1;
    for descriptor in descriptors {
        put_bytes(&mut message, 2, &descriptor.write());
        hits = descriptor.hits_addend;
    }
    // For services that do not know the field of the descriptor.
    put_number(&mut message, 3, hits.into());
    message
}

/// `RateLimitResponse.Code`.
pub(super) const OK: u64 = 1;
pub(super) const OVER_LIMIT: u64 = 2;

/// `RateLimitResponse`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RateLimitResponse {
    pub(super) overall_code: u64,
    /// One for each descriptor, in their order.
    pub(super) statuses: Vec<DescriptorStatus>,
    response_headers: Vec<ServiceHeader>,
    request_headers: Vec<ServiceHeader>,
    /// How many headers are invalid, or frame the message.
    dropped: usize,
}

/// `RateLimitResponse.DescriptorStatus`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct DescriptorStatus {
    pub(super) code: u64,
    pub(super) limit_remaining: u32,
    /// Nanoseconds until the counter starts again; 0 when the service does not say.
    pub(super) until_reset: u64,
}

/// `HeaderValue`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ServiceHeader {
    key: Box<str>,
    value: Box<[u8]>,
}

impl RateLimitResponse {
    /// Reads a response; `None`: it is malformed.
    #[cold]
    pub(super) fn read(bytes: &[u8]) -> Option<RateLimitResponse> {
        if bytes.len() > LARGEST {
            return None;
        }
        let mut answer = RateLimitResponse::default();
        let mut fields = MessageFields(bytes);
        while let Some(field) = fields.next()? {
            match field {
                (1, FieldValue::Number(code)) => answer.overall_code = code,
                (2, FieldValue::Bytes(status)) => answer.statuses.push(DescriptorStatus::read(status)?),
                (number @ (3 | 4), FieldValue::Bytes(header)) => match ServiceHeader::read(header)? {
                    Some(header) if number == 3 => answer.response_headers.push(header),
                    Some(header) => answer.request_headers.push(header),
                    None => answer.dropped += 1,
                },
                _ => {}
            }
        }
        Some(answer).filter(|answer| [OK, OVER_LIMIT].contains(&answer.overall_code))
    }

    /// A response with this code for all descriptors and nothing else.
    #[cfg(any(test, feature = "wire"))]
    pub(super) fn plain(overall_code: u64) -> RateLimitResponse {
        RateLimitResponse { overall_code, ..RateLimitResponse::default() }
    }

    /// The headers that the service adds to the response.
    pub(super) fn response_headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.response_headers.iter().map(|header| (&*header.key, &*header.value))
    }

    /// The headers that the service adds to the request. A service cannot add the route header `route_header`, nor
    /// headers that change where the request goes or what it requests.
    pub(super) fn request_headers(&self, route_header: &str) -> impl Iterator<Item = (&str, &[u8])> {
        let allowed = self.request_headers.iter().filter(move |header| may_add(header, route_header));
        allowed.map(|header| (&*header.key, &*header.value))
    }

    /// How many of the headers that the service adds are left out.
    pub(super) fn dropped(&self, route_header: &str) -> usize {
        self.dropped + self.request_headers.iter().filter(|header| !may_add(header, route_header)).count()
    }
}

fn may_add(header: &ServiceHeader, route_header: &str) -> bool {
    *header.key != *route_header && !redirects_request(&header.key)
}

impl DescriptorStatus {
    #[cold]
    fn read(bytes: &[u8]) -> Option<DescriptorStatus> {
        let mut status = DescriptorStatus::default();
        let mut fields = MessageFields(bytes);
        while let Some(field) = fields.next()? {
            match field {
                (1, FieldValue::Number(code)) => status.code = code,
                (3, FieldValue::Number(left)) => status.limit_remaining = u32::try_from(left).unwrap_or(u32::MAX),
                (4, FieldValue::Bytes(duration)) => status.until_reset = nanoseconds(duration)?,
                _ => {}
            }
        }
        Some(status)
    }
}

/// Reads a `google.protobuf.Duration`; a negative one counts as missing.
#[cold]
fn nanoseconds(bytes: &[u8]) -> Option<u64> {
    let (mut seconds, mut nanos) = (0_i64, 0_i64);
    let mut fields = MessageFields(bytes);
    while let Some(field) = fields.next()? {
        match field {
            (1, FieldValue::Number(number)) => seconds = number.cast_signed(),
            (2, FieldValue::Number(number)) => nanos = number.cast_signed(),
            _ => {}
        }
    }
    let part = |number: i64| u64::try_from(number).unwrap_or(0);
    Some(part(seconds).saturating_mul(1_000_000_000).saturating_add(part(nanos)))
}

impl ServiceHeader {
    /// `None`: malformed. `Some(None)`: the header is invalid or would break the message's framing, and is left out.
    #[cold]
    fn read(bytes: &[u8]) -> Option<Option<ServiceHeader>> {
        let (mut key, mut value) = (&b""[..], &b""[..]);
        let mut fields = MessageFields(bytes);
        while let Some(field) = fields.next()? {
            match field {
                (1, FieldValue::Bytes(bytes)) => key = bytes,
                // As text, or as raw bytes.
                (2 | 3, FieldValue::Bytes(bytes)) if !bytes.is_empty() => value = bytes,
                _ => {}
            }
        }
        let key = std::str::from_utf8(key).ok()?.to_ascii_lowercase();
        let is_text = value.iter().all(|&byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f));
        let is_header = is_token(key.as_bytes()) && key != "host" && !frames_message(&key);
        Some((is_header && is_text).then(|| ServiceHeader { key: key.into(), value: value.into() }))
    }
}
