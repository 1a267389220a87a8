//! Where the caller's verified identity comes from.

/// Where the caller's verified identity comes from; never a header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum IdentitySource {
    /// The URI SAN of the certificate that the client's TLS handshake proved.
    #[default]
    PeerCertificate,
    /// The proxy's own workload, from its node metadata: for sidecars, where the caller is the workload itself.
    Workload {
        /// The trust domain of the SPIFFE ID `spiffe://<trustDomain>/ns/<namespace>/sa/<service account>`.
        trust_domain: Box<str>,
    },
    /// A filter state object, such as Istio's `io.istio.peer_principal`.
    FilterState(Box<str>),
}
