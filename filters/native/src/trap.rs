//! Panics on demand, so that tests can observe what happens to the request. Only with the feature `trap`, which no
//! released module has.

#![allow(clippy::panic)]

#[cfg(test)]
use std::cell::Cell;

use crate::abi::{Downstream, Stream, StreamHeaders};

#[cfg(test)]
thread_local! {
    static IS_ARMED: Cell<bool> = const { Cell::new(false) };
}

/// The next code of this thread that runs in a guard panics.
#[cfg(test)]
pub(crate) fn arm() {
    IS_ARMED.set(true);
}

#[cfg(test)]
pub(crate) fn is_armed() -> bool {
    IS_ARMED.get()
}

/// Panics when armed.
#[cfg(test)]
pub(crate) fn spring() {
    // A thread that ends has no flag any more.
    if IS_ARMED.try_with(Cell::take).unwrap_or(false) {
        panic!("told to");
    }
}

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
