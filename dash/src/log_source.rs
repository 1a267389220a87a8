//! Sources of access logs.

use std::net::SocketAddr;
use std::path::PathBuf;

/// The source of a cluster's access logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogSource {
    /// Envoys send them to this address.
    Grpc {
        /// The cluster's name.
        cluster: String,
        /// The address to listen on.
        listen: SocketAddr,
    },
    /// A file that is followed; `-` for standard input.
    File {
        /// The cluster's name.
        cluster: String,
        /// The file.
        path: PathBuf,
    },
}
