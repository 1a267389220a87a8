//! Panics on demand, so that tests can observe what happens to the request. Only with the feature `trap`, which no
//! released module has.

#![allow(clippy::panic)]

use crate::abi::{Downstream, Stream, StreamHeaders};

/// Panics when the current request has the header `x-penstock-trap`.
pub(crate) fn on_request(stream: Stream) {
    if stream.header(StreamHeaders::Request, "x-penstock-trap").is_some() {
        panic!("told to");
    }
}

/// Panics when the response has the header `x-penstock-trap`.
pub(crate) fn on_response(stream: Stream) {
    if stream.header(StreamHeaders::Response, "x-penstock-trap").is_some() {
        panic!("told to");
    }
}

/// Panics when a service answers about a request with the header `x-penstock-trap-reply`.
pub(crate) fn on_reply(stream: Stream) {
    if stream.header(StreamHeaders::Request, "x-penstock-trap-reply").is_some() {
        panic!("told to");
    }
}

/// Panics when the current connection has the server name `trap.test`.
pub(crate) fn on_connection(downstream: Downstream) {
    if downstream.sni().is_some_and(|sni| sni == b"trap.test") {
        panic!("told to");
    }
}

/// Panics in each tick of the plugin `trap-tick`.
pub(crate) fn on_tick(plugin: &[u8]) {
    if plugin == b"trap-tick" {
        panic!("told to");
    }
}
