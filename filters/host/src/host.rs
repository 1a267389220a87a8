//! The seam to the platform: what the life of a plugin and of a request needs of the proxy that runs it.

use std::fmt::{Debug, Display};
use std::net::IpAddr;
use std::time::Duration;

use penstock_policy::facts::{Fact, FactPlace};
use penstock_policy::state::{Change, Key, Table};
use penstock_policy::{Header, HeaderOp, IdentitySource, Timestamp};
use smallvec::SmallVec;

/// The headers of one request, borrowed from what the proxy handed over. Most requests fit without an allocation.
pub type Headers<'a> = SmallVec<[Header<'a>; 32]>;

/// Bytes from the proxy that are not a header map, or one too large for the memory left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("malformed header map")
    }
}

/// Whether a request or connection goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Flow {
    /// To the next filter.
    Continue = 0,
    /// It waits here; after a local response it has ended.
    Pause = 1,
}

/// The kinds of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows.
    Counter,
    /// Is what it was last set to.
    Gauge,
    /// A distribution of values.
    Histogram,
}

/// The proxy, as one of its plugins sees it.
///
/// Errors are the platform's own. None of them is expected of a proxy that works; what becomes of each is in
/// [`crate::Failure`].
pub trait Host: Debug {
    /// Why a call failed.
    type Error: Copy + Debug + Display;
    /// One request, or one connection, that the plugin sees.
    type Request: ProxyRequest<Error = Self::Error>;
    /// One worker's way to the state of one plugin.
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

    /// Asks for a call of [`crate::Plugin::tick`] in each `period`.
    ///
    /// # Errors
    /// When the proxy has no timers.
    fn start_timer(&self, period: Duration) -> Result<(), Self::Error>;

    /// The number of the metric `name`, which comes into being when it is new.
    ///
    /// # Errors
    /// When the proxy does not take it.
    fn define_metric(&self, kind: MetricKind, name: &str) -> Result<u32, Self::Error>;

    /// Adds to a counter.
    ///
    /// # Errors
    /// When the proxy does not take it: nothing was added.
    fn increment(&self, counter: u32, by: u32) -> Result<(), Self::Error>;

    /// Sets a gauge, or adds one value to a histogram.
    ///
    /// # Errors
    /// When the proxy does not take it.
    fn record(&self, metric: u32, value: u64) -> Result<(), Self::Error>;

    /// One worker's way to the plugin's state, whose policy has these tables. Tables of another `namespace` are others, even
    /// where all else is the same. Room may be made for them; none of their values is written by that.
    fn state(&self, namespace: u64, tables: &[Table]) -> Self::State;

    /// Where nothing in the proxy's configuration tells this plugin from others: what is missing there.
    fn unnamed_hint(&self) -> Option<&'static str>;

    /// Whether the platform shows what earlier filters have left: see [`ProxyRequest::facts`].
    fn has_facts(&self) -> bool {
        true
    }

    /// Whether the platform shows the metadata of its node, which [`IdentitySource::Workload`] reads.
    fn has_workload(&self) -> bool {
        true
    }

    /// The most detailed level of which the proxy's log takes lines at the moment.
    fn log_level(&self) -> log::LevelFilter;
}

/// One worker's way to the state that all workers of the proxy share.
pub trait PluginState: Debug {
    /// Why the proxy does not read or write; `None`: others never stop writing.
    type Error;

    /// Whether an update costs so much that workers take from the buckets of limits in advance.
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

    /// Shows a value; see [`penstock_policy::state::State::read`].
    ///
    /// # Errors
    /// When the value cannot be read.
    fn read<T>(&mut self, key: Key<'_>, read: impl FnOnce(&[u8]) -> T) -> Result<T, Option<Self::Error>>;

    /// A second has passed: says that the policy still lives, where the state of policies that are gone is used again.
    fn keep(&mut self) {}

    /// How many values under the plugin's keys were another's, since the last time that this was asked.
    fn take_foreign(&mut self) -> u32 {
        0
    }
}

/// A request's header map as the proxy handed it over. Held while a rate-limit service is asked, and must stay what it
/// was until then, whatever happens to the request.
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

/// How a call begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallStart {
    /// It is under way: the reply goes to [`crate::Plugin::reply`]. The number is the proxy's.
    Begun(u32),
    /// It is over already: with a reply, or without.
    Ended(Option<Vec<u8>>),
}

/// Where a response of gRPC has its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrpcStatusIn {
    /// In its headers, where it has no body.
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
    /// When the proxy does not hand them over.
    fn headers(&mut self) -> Result<Self::Headers, Self::Error>;

    /// Changes one header.
    ///
    /// # Errors
    /// When the proxy does not take it.
    fn change_header(&mut self, change: &HeaderOp<'_>) -> Result<(), Self::Error>;

    /// All changes have been made: the proxy looks for its route anew, where it does not with each change.
    fn headers_changed(&mut self) {}

    /// Answers in the place of an upstream. `details` goes to access logs. A client of gRPC gets `grpc_status`, or what
    /// the proxy derives from `status`.
    ///
    /// # Errors
    /// When the proxy does not take it: no response was given.
    fn respond(
        &mut self,
        status: u16,
        details: &str,
        headers: &[Header<'_>],
        body: &[u8],
        grpc_status: Option<u8>,
    ) -> Result<(), Self::Error>;

    /// Resets the request: what is left when it cannot even be answered.
    fn reset(&mut self);

    /// Lets the request go on after a pause.
    ///
    /// # Errors
    /// When the proxy does not take it: the request still waits.
    fn resume(&mut self) -> Result<(), Self::Error>;

    /// Begins a call for the request.
    ///
    /// # Errors
    /// When the proxy does not take it: there is no call.
    fn call(&mut self, call: &GrpcCall<'_>) -> Result<CallStart, Self::Error>;

    /// Starts a call whose reply changes nothing, when the response's headers have arrived. The service gets it even if the
    /// exchange ends.
    ///
    /// # Errors
    /// When the proxy does not accept it: there is no call.
    fn tell(&mut self, call: &GrpcCall<'_>) -> Result<(), Self::Error> {
        self.call(call).map(drop)
    }

    /// Gives up a call; one that is over already is left alone.
    fn cancel(&mut self, call: u32);

    /// Leaves a value for access logs and later filters, under a name such as `penstock.rule`.
    fn set_filter_state(&mut self, name: &str, value: &str);

    /// Changes one header of the response, whose headers are there.
    ///
    /// # Errors
    /// When the proxy does not take it.
    fn change_response_header(&mut self, change: &HeaderOp<'_>) -> Result<(), Self::Error>;

    /// The first value of a header of the response, whose headers are there; `name` in lower case. A platform that cannot
    /// tell leaves what was reserved as it is.
    fn response_header(&mut self, _name: &str) -> Option<Vec<u8>> {
        None
    }

    /// `grpc-status` of the response, where it is a number.
    fn grpc_status(&mut self, place: GrpcStatusIn) -> Option<u32>;

    /// The status of the response, whose headers are there.
    ///
    /// # Errors
    /// When the proxy does not tell.
    fn response_status(&mut self) -> Result<u16, Self::Error>;

    /// Envoy's response flags once the exchange is over: what cut it off. 0 when the proxy does not tell.
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
    /// is not there. Never a header. A platform without dynamic metadata has no facts.
    fn facts(&mut self, _places: &[FactPlace]) -> Vec<Fact> {
        Vec::new()
    }

    /// What an earlier filter's `header-routing` module left under [`crate::ROUTE_STATE`].
    fn earlier_route(&mut self) -> Option<Vec<u8>>;
}
