//! A connection that passes a network filter.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use penstock_host::{Flow, ProxyRequest, count_failure};

use crate::abi::Downstream;
use crate::config::FilterConfig;
use crate::error::Error;
use crate::guard::{guard, release};
use crate::handles::Handles;
use crate::host::NativeHost;
use crate::request::{NativeConnection, NativeRequest};
use crate::sections::Sections;

thread_local! {
    static CONNECTIONS: RefCell<Handles<DownstreamConnection>> = const { RefCell::new(Handles::new()) };
}

/// Returns `None` also while the thread ends and its connections are gone, because nothing outside of a guard may
/// panic.
fn with_connections<T>(act: impl FnOnce(&RefCell<Handles<DownstreamConnection>>) -> Option<T>) -> Option<T> {
    CONNECTIONS.try_with(act).ok().flatten()
}

/// A connection.
#[derive(Debug)]
pub(crate) struct DownstreamConnection {
    downstream: Downstream,
    sections: Arc<dyn Sections>,
    host: NativeHost,
    is_open: Cell<bool>,
    /// Whether Envoy has destroyed its side.
    is_gone: Cell<bool>,
}

/// The id of a new connection; `None` when there are too many.
pub(crate) fn new(config: &FilterConfig, downstream: Downstream) -> Option<usize> {
    let connection = DownstreamConnection {
        downstream,
        sections: config.sections()?,
        host: config.host().clone(),
        is_open: Cell::new(false),
        is_gone: Cell::new(false),
    };
    with_connections(|connections| connections.try_borrow_mut().ok()?.insert(Rc::new(connection)))
}

fn find(handle: usize) -> Option<Rc<DownstreamConnection>> {
    with_connections(|connections| connections.try_borrow().ok()?.get(handle))
}

/// Decides a connection before any of its bytes is forwarded; returns whether it continues. Otherwise it is closed,
/// also when the decision panics.
pub(crate) fn decide(handle: usize) -> bool {
    let Some(connection) = find(handle) else { return false };
    let mut request = NativeRequest::Connection(Rc::<DownstreamConnection>::clone(&connection));
    let decided = guard(|| {
        #[cfg(any(test, feature = "trap"))]
        crate::trap::on_connection(connection.downstream);
        connection.sections.connection(&mut request)
    });
    let is_open = match decided {
        Ok(flow) => flow == Flow::Continue,
        Err(_) => {
            let _ = guard(|| connection.count_panic());
            let _ = guard(|| request.close_connection());
            false
        }
    };
    connection.is_open.set(is_open);
    let _ = guard(|| connection.host.hand_over_by_connection(connection.downstream()));
    release((request, connection));
    is_open
}

/// Whether the connection was allowed.
pub(crate) fn is_open(handle: usize) -> bool {
    find(handle).is_some_and(|connection| connection.is_open.get())
}

/// Envoy destroys its side.
pub(crate) fn destroy(handle: usize) {
    let connection = with_connections(|connections| connections.try_borrow_mut().ok()?.remove(handle));
    if let Some(connection) = connection {
        connection.is_gone.set(true);
    }
}

impl NativeConnection for DownstreamConnection {
    fn downstream(&self) -> Result<Downstream, Error> {
        if self.is_gone.get() { Err(Error::Over) } else { Ok(self.downstream) }
    }
}

impl DownstreamConnection {
    fn count_panic(&self) {
        count_failure(&self.host, "panic");
    }
}
