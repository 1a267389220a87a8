//! The part of Envoy's gRPC access log that is read: `envoy.service.accesslog.v3.StreamAccessLogsMessage` and its
//! fields. Fields that are not declared here are ignored.
//!
//! <https://www.envoyproxy.io/docs/envoy/latest/api-v3/data/accesslog/v3/accesslog.proto>

use std::collections::HashMap;

use prost::Message;

/// `envoy.service.accesslog.v3.StreamAccessLogsMessage`.
#[derive(Clone, PartialEq, Message)]
pub struct StreamAccessLogsMessage {
    /// Only in the first message of a stream.
    #[prost(message, optional, tag = "1")]
    pub identifier: Option<StreamIdentifier>,
    #[prost(message, optional, tag = "2")]
    pub http_logs: Option<HttpEntries>,
}

#[derive(Clone, PartialEq, Message)]
pub struct StreamIdentifier {
    #[prost(message, optional, tag = "1")]
    pub node: Option<EnvoyNode>,
}

/// `envoy.config.core.v3.Node`.
#[derive(Clone, PartialEq, Message)]
pub struct EnvoyNode {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(message, optional, tag = "3")]
    pub metadata: Option<Struct>,
}

/// `google.protobuf.Struct`, of which only strings are read.
#[derive(Clone, PartialEq, Message)]
pub struct Struct {
    #[prost(map = "string, message", tag = "1")]
    pub fields: HashMap<String, StructValue>,
}

#[derive(Clone, PartialEq, Message)]
pub struct StructValue {
    #[prost(string, optional, tag = "3")]
    pub text: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub struct HttpEntries {
    /// Each a [`HttpEntry`], which is read by itself: thousands of empty ones would take a thousand times the memory of the
    /// message.
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub entries: Vec<Vec<u8>>,
}

/// `envoy.data.accesslog.v3.HTTPAccessLogEntry`.
#[derive(Clone, PartialEq, Message)]
pub struct HttpEntry {
    #[prost(message, optional, tag = "1")]
    pub common: Option<CommonProperties>,
    #[prost(message, optional, tag = "3")]
    pub request: Option<RequestProperties>,
    #[prost(message, optional, tag = "4")]
    pub response: Option<ResponseProperties>,
}

/// `AccessLogCommon`.
#[derive(Clone, PartialEq, Message)]
pub struct CommonProperties {
    #[prost(message, optional, tag = "2")]
    pub downstream_remote_address: Option<EnvoyAddress>,
    #[prost(message, optional, tag = "4")]
    pub tls: Option<TlsProperties>,
    #[prost(message, optional, tag = "5")]
    pub start_time: Option<StartTime>,
    #[prost(map = "string, message", tag = "21")]
    pub filter_state_objects: HashMap<String, Any>,
    #[prost(map = "string, string", tag = "22")]
    pub custom_tags: HashMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
pub struct EnvoyAddress {
    #[prost(message, optional, tag = "1")]
    pub socket: Option<SocketAddress>,
}

#[derive(Clone, PartialEq, Message)]
pub struct SocketAddress {
    #[prost(string, tag = "2")]
    pub address: String,
}

/// `TLSProperties`.
#[derive(Clone, PartialEq, Message)]
pub struct TlsProperties {
    #[prost(string, tag = "3")]
    pub sni: String,
    #[prost(message, optional, tag = "5")]
    pub peer: Option<CertificateProperties>,
}

#[derive(Clone, PartialEq, Message)]
pub struct CertificateProperties {
    #[prost(message, repeated, tag = "1")]
    pub names: Vec<AlternativeName>,
}

#[derive(Clone, PartialEq, Message)]
pub struct AlternativeName {
    #[prost(string, optional, tag = "1")]
    pub uri: Option<String>,
}

/// `google.protobuf.Timestamp`.
#[derive(Clone, PartialEq, Message)]
pub struct StartTime {
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
pub struct Any {
    #[prost(string, tag = "1")]
    pub kind: String,
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

/// `google.protobuf.BytesValue`; a `StringValue` has the same encoding.
#[derive(Clone, PartialEq, Message)]
pub struct WrappedBytes {
    #[prost(bytes = "vec", tag = "1")]
    pub value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub struct RequestProperties {
    /// `envoy.config.core.v3.RequestMethod`.
    #[prost(int32, tag = "1")]
    pub method: i32,
    #[prost(string, tag = "2")]
    pub scheme: String,
    #[prost(string, tag = "3")]
    pub authority: String,
    #[prost(string, tag = "5")]
    pub path: String,
    #[prost(string, tag = "9")]
    pub request_id: String,
    #[prost(string, tag = "10")]
    pub original_path: String,
    #[prost(map = "string, string", tag = "13")]
    pub headers: HashMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
pub struct ResponseProperties {
    #[prost(message, optional, tag = "1")]
    pub code: Option<WrappedNumber>,
    #[prost(map = "string, string", tag = "4")]
    pub headers: HashMap<String, String>,
    #[prost(string, tag = "6")]
    pub details: String,
}

/// `google.protobuf.UInt32Value`.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct WrappedNumber {
    #[prost(uint32, tag = "1")]
    pub value: u32,
}
