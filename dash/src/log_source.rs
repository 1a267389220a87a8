//! Where access logs come from.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Where the access logs of a cluster come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogSource {
    /// Envoys send them here.
    Grpc {
        /// The cluster's name.
        cluster: String,
        /// Where to listen.
        listen: SocketAddr,
    },
    /// A file that is followed; `-`: standard input.
    File {
        /// The cluster's name.
        cluster: String,
        /// The file.
        path: PathBuf,
    },
}
