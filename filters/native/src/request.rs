//! The request or connection of the current hook, as `penstock-host` needs it.

use std::fmt::Debug;
use std::net::IpAddr;
use std::rc::Rc;

use penstock_host::{CallStart, GrpcCall, GrpcStatusIn, ProxyRequest, ROUTE_STATE, address};
use penstock_policy::facts::{Fact, FactPlace};
use penstock_policy::{Header, HeaderOp, IdentitySource};
use smallvec::SmallVec;

use crate::abi::{Attribute, Downstream, Stream, StreamHeaders};
use crate::error::Error;
use crate::grpc;
use crate::headers::HeaderCopy;
use crate::metadata;

/// The stream of an HTTP filter, as its request needs it.
pub(crate) trait NativeStream: Debug {
    /// Envoy's side, while it exists.
    fn stream(&self) -> Result<Stream, Error>;

    /// Records that there was a response.
    fn refuse(&self);

    /// Continues the request after this hook has stored its remaining work: the response may arrive within the call.
    fn resume_later(&self) -> Result<(), Error>;

    /// Starts a call, which may end within `start`.
    fn begin_call(&self, start: &dyn Fn(Stream) -> Result<u64, Error>) -> Result<CallStart, Error>;

    /// Starts a call for which no decision waits. It may end within `start`.
    fn tell(&self, start: &dyn Fn(Stream) -> Result<u64, Error>) -> Result<(), Error>;

    /// Cancels a call; ignores one that has ended.
    fn cancel_call(&self, number: u32);
}

/// The connection of a network filter.
pub(crate) trait NativeConnection: Debug {
    /// Envoy's side, while it exists.
    fn downstream(&self) -> Result<Downstream, Error>;
}

/// A request or a connection.
#[derive(Clone, Debug)]
pub(crate) enum NativeRequest {
    /// The stream of an HTTP filter.
    Http(Rc<dyn NativeStream>),
    /// The connection of a network filter.
    Connection(Rc<dyn NativeConnection>),
}

fn port(number: u64) -> Option<u16> {
    u16::try_from(number).ok().filter(|port| *port != 0)
}

fn change(stream: Stream, map: StreamHeaders, change: &HeaderOp<'_>) -> Result<(), Error> {
    match change {
        HeaderOp::Set(name, value) => stream.set_header(map, name, value),
        HeaderOp::Add(name, value) => stream.add_header(map, name, value),
        HeaderOp::Remove(name) => stream.remove_header(map, name),
    }
}

/// Starts a gRPC call.
fn start_call(stream: Stream, call: &GrpcCall<'_>) -> Result<u64, Error> {
    let body = grpc::frame(call.message).ok_or(Error::Refused("call"))?;
    let path = ["/", call.service, "/", call.method].concat();
    let headers: [Header<'_>; 6] = [
        (b":method", b"POST"),
        (b":path", path.as_bytes()),
        (b":scheme", b"http"),
        (b"host", call.cluster.as_bytes()),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
    ];
    // Rounded up, because 0 would mean no timeout.
    let timeout = u64::try_from(call.timeout.as_nanos().div_ceil(1_000_000).max(1)).unwrap_or(u64::MAX);
    stream.start_call(call.cluster, &headers, &body, timeout)
}

impl NativeRequest {
    /// The stream, while it exists in Envoy.
    fn stream(&self) -> Result<Stream, Error> {
        match self {
            NativeRequest::Http(filter) => filter.stream(),
            NativeRequest::Connection(_) => Err(Error::Over),
        }
    }

    fn downstream(&self) -> Result<Downstream, Error> {
        match self {
            NativeRequest::Http(_) => Err(Error::Over),
            NativeRequest::Connection(connection) => connection.downstream(),
        }
    }

    fn text(&self, attribute: Attribute) -> Option<Vec<u8>> {
        self.stream().ok()?.text(attribute)
    }
}

impl ProxyRequest for NativeRequest {
    type Error = Error;
    type Headers = HeaderCopy;

    fn headers(&mut self) -> Result<HeaderCopy, Error> {
        self.stream()?.headers()
    }

    fn change_header(&mut self, op: &HeaderOp<'_>) -> Result<(), Error> {
        change(self.stream()?, StreamHeaders::Request, op)
    }

    fn headers_changed(&mut self) {
        if let Ok(stream) = self.stream() {
            stream.clear_route_cache();
        }
    }

    /// The ABI has no gRPC status. As a header, it replaces the one that Envoy derives, only for gRPC clients.
    fn respond(
        &mut self,
        status: u16,
        details: &str,
        headers: &[Header<'_>],
        body: &[u8],
        grpc_status: Option<u8>,
    ) -> Result<(), Error> {
        let stream = self.stream()?;
        let number = grpc_status.map(|status| status.to_string());
        let mut all: SmallVec<[Header<'_>; 8]> = headers.iter().copied().collect();
        if let Some(number) = &number
            && stream.header(StreamHeaders::Request, "content-type").is_some_and(|kind| is_grpc(&kind))
        {
            all.push((b"grpc-status", number.as_bytes()));
        }
        if let NativeRequest::Http(filter) = self {
            filter.refuse();
        }
        stream.respond(status, &all, body, details)
    }

    fn reset(&mut self) {
        if let Ok(stream) = self.stream() {
            // If Envoy lacks the callback, the request waits until one of Envoy's own timeouts ends it.
            let _ = stream.reset("penstock_reset");
        }
    }

    fn resume(&mut self) -> Result<(), Error> {
        match self {
            NativeRequest::Http(filter) => filter.resume_later(),
            NativeRequest::Connection(_) => Err(Error::Over),
        }
    }

    fn call(&mut self, call: &GrpcCall<'_>) -> Result<CallStart, Error> {
        let NativeRequest::Http(filter) = self else { return Err(Error::Over) };
        filter.begin_call(&|stream| start_call(stream, call))
    }

    /// Envoy cancels the calls of a stream that ends, so the end of the response waits for this one.
    fn tell(&mut self, call: &GrpcCall<'_>) -> Result<(), Error> {
        let NativeRequest::Http(filter) = self else { return Err(Error::Over) };
        filter.tell(&|stream| start_call(stream, call))
    }

    fn cancel(&mut self, call: u32) {
        if let NativeRequest::Http(filter) = self {
            filter.cancel_call(call);
        }
    }

    fn set_filter_state(&mut self, name: &str, value: &str) {
        if let Ok(stream) = self.stream() {
            stream.set_filter_state(&state_name(name), value);
        }
    }

    fn change_response_header(&mut self, op: &HeaderOp<'_>) -> Result<(), Error> {
        change(self.stream()?, StreamHeaders::Response, op)
    }

    fn response_header(&mut self, name: &str) -> Option<Vec<u8>> {
        self.stream().ok()?.header(StreamHeaders::Response, name)
    }

    fn grpc_status(&mut self, place: GrpcStatusIn) -> Option<u32> {
        let map = match place {
            GrpcStatusIn::Headers => StreamHeaders::Response,
            GrpcStatusIn::Trailers => StreamHeaders::ResponseTrailers,
        };
        let value = self.stream().ok()?.header(map, "grpc-status")?;
        std::str::from_utf8(&value).ok()?.parse().ok()
    }

    fn response_status(&mut self) -> Result<u16, Error> {
        let value = self.stream()?.header(StreamHeaders::Response, ":status").ok_or(Error::Refused("status"))?;
        std::str::from_utf8(&value).ok().and_then(|text| text.parse().ok()).ok_or(Error::Refused("status"))
    }

    fn response_flags(&mut self) -> u64 {
        self.stream().ok().and_then(|stream| stream.number(Attribute::ResponseFlags)).unwrap_or(0)
    }

    fn close_connection(&mut self) {
        if let Ok(downstream) = self.downstream() {
            downstream.close();
        }
    }

    fn source_address(&mut self) -> Option<IpAddr> {
        match self.downstream() {
            Ok(downstream) => address(&downstream.remote()?.0),
            Err(_) => address(&self.text(Attribute::SourceAddress)?),
        }
    }

    fn destination_address(&mut self) -> Option<IpAddr> {
        match self.downstream() {
            Ok(downstream) => address(&downstream.local()?.0),
            Err(_) => address(&self.text(Attribute::DestinationAddress)?),
        }
    }

    fn destination_port(&mut self) -> Option<u16> {
        match self.downstream() {
            Ok(downstream) => port(downstream.local()?.1.into()),
            Err(_) => port(self.stream().ok()?.number(Attribute::DestinationPort)?),
        }
    }

    /// Envoy reports a TLS version exactly for connections with TLS.
    fn has_tls(&mut self) -> Option<bool> {
        match self.downstream() {
            Ok(downstream) => downstream.has_tls(),
            Err(_) => Some(self.stream().ok()?.text(Attribute::TlsVersion).is_some()),
        }
    }

    fn sni(&mut self) -> Option<Vec<u8>> {
        match self.downstream() {
            Ok(downstream) => downstream.sni(),
            Err(_) => self.text(Attribute::RequestedServerName),
        }
    }

    fn identity(&mut self, source: &IdentitySource) -> Option<Vec<u8>> {
        match source {
            IdentitySource::PeerCertificate => match self.downstream() {
                Ok(downstream) => downstream.peer_uri(),
                Err(_) => self.text(Attribute::UriSanOfPeer),
            },
            IdentitySource::FilterState(key) => match self.downstream() {
                Ok(downstream) => downstream.filter_state(key),
                Err(_) => self.stream().ok()?.filter_state(key),
            },
            // Such a policy is refused when it loads: see `lacks`.
            IdentitySource::Workload { .. } => None,
        }
    }

    /// The ABI does not show nested metadata, so a filter before this one copies it into filter state.
    fn facts(&mut self, places: &[FactPlace]) -> Result<Vec<Fact>, Error> {
        let stream = self.stream()?;
        metadata::facts(places, |state| stream.filter_state(state))
    }

    fn earlier_route(&mut self) -> Option<Vec<u8>> {
        self.stream().ok()?.own_filter_state(&state_name(ROUTE_STATE))
    }
}

/// The prefix under which Envoy stores what a wasm module sets: access logs are the same for both bodies, and each sees
/// the other's route.
fn state_name(name: &str) -> String {
    ["wasm.", name].concat()
}

/// Whether Envoy treats a request with this content type as gRPC.
fn is_grpc(content_type: &[u8]) -> bool {
    content_type.strip_prefix(b"application/grpc").is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_of_grpc_are_told_as_envoy_tells_them() {
        for (kind, expected) in [
            (&b"application/grpc"[..], true),
            (b"application/grpc+proto", true),
            (b"application/grpc-web", false),
            (b"application/json", false),
            (b"", false),
        ] {
            assert_eq!(is_grpc(kind), expected, "{kind:?}");
        }
    }
}
