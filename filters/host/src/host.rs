//! The interface to the platform: what a plugin and its requests need from the proxy.

use std::fmt::{Debug, Display};
use std::net::IpAddr;
use std::time::Duration;

use penstock_policy::facts::{Fact, FactPlace};
use penstock_policy::state::{Change, Key, Table};
use penstock_policy::{Header, HeaderOp, IdentitySource, Timestamp};
use smallvec::SmallVec;

/// The headers of one request, borrowed from the memory that the proxy returned. Most requests fit without an allocation.
pub type Headers<'a> = SmallVec<[Header<'a>; 32]>;

/// The proxy returned bytes that are not a header map, or a header map that is too large for the free memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("malformed header map")
    }
}

/// Whether a request or connection continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Flow {
    /// It continues to the next filter.
    Continue = 0,
    /// It waits here, or has ended with a local response.
    Pause = 1,
}

/// The kinds of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Its value only grows.
    Counter,
    /// Its value is the one that was set last.
    Gauge,
    /// A distribution of values.
    Histogram,
}

/// Data that a policy may need and that some platforms do not provide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyNeed {
    /// The metadata of the proxy's node, which [`IdentitySource::Workload`] reads.
    Workload,
    /// The server name of a request's connection: see [`ProxyRequest::sni`].
    ServerName,
}

/// The proxy, as one of its plugins sees it.
///
/// The platform defines the type of errors. A working proxy returns none of them; [`crate::Failure`] defines how each
/// is handled.
pub trait Host: Debug {
    /// Why a call failed.
    type Error: Copy + Debug + Display;
    /// One request, or one connection, that the plugin sees.
    type Request: ProxyRequest<Error = Self::Error>;
    /// One worker's access to the state of one plugin.
    type State: PluginState<Error = Self::Error>;

    /// The wall clock.
    ///
    /// # Errors
    /// When the proxy has none.
    fn now(&self) -> Result<Timestamp, Self::Error>;

    /// 64 random bits.
    ///
    /// # Errors
    /// When the proxy has no source of them.
    fn random(&self) -> Result<u64, Self::Error>;

    /// The plugin's name in the proxy's configuration.
    fn plugin_name(&self) -> Option<String>;

    /// Makes the proxy call [`crate::Plugin::tick`] once in each `period`.
    ///
    /// # Errors
    /// When the proxy has no timers.
    fn start_timer(&self, period: Duration) -> Result<(), Self::Error>;

    /// The id of the metric `name`, which is created if it is new.
    ///
    /// # Errors
    /// When the proxy refuses it.
    fn define_metric(&self, kind: MetricKind, name: &str) -> Result<u32, Self::Error>;

    /// Adds to a counter.
    ///
    /// # Errors
    /// When the proxy refuses it: nothing was added.
    fn increment(&self, counter: u32, by: u32) -> Result<(), Self::Error>;

    /// Sets a gauge, or adds one value to a histogram.
    ///
    /// # Errors
    /// When the proxy refuses it.
    fn record(&self, metric: u32, value: u64) -> Result<(), Self::Error>;

    /// One worker's access to the plugin's state, for a policy with these tables. Tables of another `namespace` are
    /// separate, even if they are otherwise equal. This may reserve memory for the tables, but writes no values.
    fn state(&self, namespace: u64, tables: &[Table]) -> Self::State;

    /// If nothing in the proxy's configuration distinguishes this plugin from others: what is missing there.
    fn unnamed_hint(&self) -> Option<&'static str>;

    /// Why a policy that needs this is refused; `None` when the platform provides it.
    fn lacks(&self, _need: PolicyNeed) -> Option<&'static str> {
        None
    }

    /// The most detailed level that is enabled in the proxy's log now.
    fn log_level(&self) -> log::LevelFilter;
}

/// One worker's access to the state that all workers of the proxy share.
pub trait PluginState: Debug {
    /// Why the proxy could not read or write; `None` when other workers wrote the same value again and again.
    type Error;

    /// Whether an update is so expensive that workers take requests from the buckets of limits in advance.
    const LEASES: bool = false;

    /// Updates a value; see [`penstock_policy::state::State::update`].
    ///
    /// # Errors
    /// When the value cannot be read or written.
    fn update<T>(
        &mut self,
        key: Key<'_>,
        change: impl FnMut(&[u8], &mut Vec<u8>) -> Change<T>,
    ) -> Result<T, Option<Self::Error>>;

    /// Reads a value; see [`penstock_policy::state::State::read`].
    ///
    /// # Errors
    /// When the value cannot be read.
    fn read<T>(&mut self, key: Key<'_>, read: impl FnOnce(&[u8]) -> T) -> Result<T, Option<Self::Error>>;

    /// Called each second: marks the policy as alive, on platforms that reuse the state of policies that no longer exist.
    fn keep(&mut self) {}

    /// How many values of other plugins were found under this plugin's keys since the last call.
    fn take_foreign(&mut self) -> u32 {
        0
    }
}

/// A request's header map as the proxy returned it. It is kept while a rate-limit service is called, and must not
/// change until its reply, whatever happens to the request.
pub trait HeaderMap: Debug {
    /// The headers in the order received, names in lower case, pseudo-headers included.
    ///
    /// # Errors
    /// When the bytes are not a header map.
    fn parse(&self) -> Result<Headers<'_>, Malformed>;
}

/// A unary gRPC call.
#[derive(Clone, Copy, Debug)]
pub struct GrpcCall<'a> {
    /// The cluster to call.
    pub cluster: &'a str,
    /// The full name of the service.
    pub service: &'static str,
    /// The name of the method.
    pub method: &'static str,
    /// The serialised request.
    pub message: &'a [u8],
    /// How long the proxy waits for the reply; more than zero.
    pub timeout: Duration,
}

/// The result of starting a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallStart {
    /// It is in progress: its reply is passed to [`crate::Plugin::reply`]. The number is the proxy's id of the call.
    Begun(u32),
    /// It has already ended, with or without a reply.
    Ended(Option<Vec<u8>>),
}

/// Where a gRPC response has its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrpcStatusIn {
    /// In its headers, if it has no body.
    Headers,
    /// In its trailers.
    Trailers,
}

/// The current request or connection.
pub trait ProxyRequest {
    /// Why a call failed.
    type Error: Copy + Debug + Display;
    /// Its headers.
    type Headers: HeaderMap;

    /// All headers of the request, in one call.
    ///
    /// # Errors
    /// When the proxy does not return them.
    fn headers(&mut self) -> Result<Self::Headers, Self::Error>;

    /// Changes one header.
    ///
    /// # Errors
    /// When the proxy refuses it.
    fn change_header(&mut self, change: &HeaderOp<'_>) -> Result<(), Self::Error>;

    /// Called after all changes: the proxy selects the route again, unless it already does so after each change.
    fn headers_changed(&mut self) {}

    /// Sends a response instead of forwarding the request. `details` goes to access logs. A gRPC client gets
    /// `grpc_status`, or what the proxy derives from `status`.
    ///
    /// # Errors
    /// When the proxy refuses it: no response was sent.
    fn respond(
        &mut self,
        status: u16,
        details: &str,
        headers: &[Header<'_>],
        body: &[u8],
        grpc_status: Option<u8>,
    ) -> Result<(), Self::Error>;

    /// Resets the request, if no response can be sent.
    fn reset(&mut self);

    /// Continues a request that waits.
    ///
    /// # Errors
    /// When the proxy refuses it: the request still waits.
    fn resume(&mut self) -> Result<(), Self::Error>;

    /// Starts a call for the request.
    ///
    /// # Errors
    /// When the proxy refuses it: there is no call.
    fn call(&mut self, call: &GrpcCall<'_>) -> Result<CallStart, Self::Error>;

    /// Starts a call whose reply changes nothing, when the response's headers have arrived. The service gets it even if the
    /// exchange ends.
    ///
    /// # Errors
    /// When the proxy does not accept it: there is no call.
    fn tell(&mut self, call: &GrpcCall<'_>) -> Result<(), Self::Error> {
        self.call(call).map(drop)
    }

    /// Cancels a call; ignores one that has ended.
    fn cancel(&mut self, call: u32);

    /// Sets a value for access logs and later filters, under a name such as `penstock.rule`.
    fn set_filter_state(&mut self, name: &str, value: &str);

    /// Changes one header of the response, whose headers have arrived.
    ///
    /// # Errors
    /// When the proxy refuses it.
    fn change_response_header(&mut self, change: &HeaderOp<'_>) -> Result<(), Self::Error>;

    /// The first value of a header of the response, whose headers have arrived; `name` is in lower case. On a platform
    /// that cannot read it, reservations stay as they are.
    fn response_header(&mut self, _name: &str) -> Option<Vec<u8>> {
        None
    }

    /// `grpc-status` of the response, if it is a number.
    fn grpc_status(&mut self, place: GrpcStatusIn) -> Option<u32>;

    /// The status of the response, whose headers have arrived.
    ///
    /// # Errors
    /// When the proxy does not return it.
    fn response_status(&mut self) -> Result<u16, Self::Error>;

    /// Envoy's response flags after the end of the exchange: why it was cut off. 0 when the proxy does not return them.
    fn response_flags(&mut self) -> u64;

    /// Closes the connection that is being decided.
    fn close_connection(&mut self);

    /// The address of the peer that is connected to the proxy, never a header.
    fn source_address(&mut self) -> Option<IpAddr>;

    /// The address that the client connected to.
    fn destination_address(&mut self) -> Option<IpAddr>;

    /// The port that the client connected to.
    fn destination_port(&mut self) -> Option<u16>;

    /// Whether the client's connection has TLS; `None`: the proxy does not tell.
    fn has_tls(&mut self) -> Option<bool>;

    /// The server name that the client's TLS handshake asked for.
    fn sni(&mut self) -> Option<Vec<u8>>;

    /// The caller's verified identity from this source, never a header.
    fn identity(&mut self, source: &IdentitySource) -> Option<Vec<u8>>;

    /// What earlier filters have left at these places of the dynamic metadata, in their order; what is missing at the end
    /// is not there. Never a header.
    ///
    /// # Errors
    /// When the proxy does not show the metadata. The request is refused then.
    fn facts(&mut self, places: &[FactPlace]) -> Result<Vec<Fact>, Self::Error>;

    /// What an earlier filter's `header-routing` module left under [`crate::ROUTE_STATE`].
    fn earlier_route(&mut self) -> Option<Vec<u8>>;
}
