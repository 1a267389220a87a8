//! HTTPS, optionally with client certificates.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::serve::Listener;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::config::Tls;

/// How long a client may take for the handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// The maximum number of connections that wait to be served.
const WAITING: usize = 64;

/// Accepts connections after their handshake, so that slow handshakes do not delay others.
#[derive(Debug)]
pub struct TlsListener<S = TcpStream> {
    ready: mpsc::Receiver<(TlsStream<S>, SocketAddr)>,
    address: SocketAddr,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> TlsListener<S> {
    /// Starts to accept. Must be called inside a runtime.
    ///
    /// # Errors
    /// Returns an error when a file cannot be read or has no certificate or key.
    pub fn new(listener: impl Listener<Io = S, Addr = SocketAddr>, tls: &Tls) -> Result<TlsListener<S>> {
        TlsListener::with(listener, Arc::new(configuration(tls)?))
    }

    /// Starts to accept with the given configuration. Must be called inside a runtime.
    ///
    /// # Errors
    /// Returns an error when the socket has no address.
    pub fn with(
        mut listener: impl Listener<Io = S, Addr = SocketAddr>,
        tls: Arc<rustls::ServerConfig>,
    ) -> Result<TlsListener<S>> {
        let acceptor = TlsAcceptor::from(tls);
        let address = listener.local_addr()?;
        let (sender, ready) = mpsc::channel(WAITING);
        tokio::spawn(async move {
            loop {
                let (stream, from) = listener.accept().await;
                let (acceptor, sender) = (acceptor.clone(), sender.clone());
                tokio::spawn(async move {
                    if let Ok(Ok(stream)) = time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
                        // The server has ended.
                        let _ = sender.send((stream, from)).await;
                    }
                });
            }
        });
        Ok(TlsListener { ready, address })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Listener for TlsListener<S> {
    type Io = TlsStream<S>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(connection) => connection,
            // The task that sends never ends.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(self.address)
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = read.with_context(|| format!("cannot read certificates from {}", path.display()))?;
    anyhow::ensure!(!certificates.is_empty(), "{} has no certificate in PEM", path.display());
    Ok(certificates)
}

fn configuration(tls: &Tls) -> Result<rustls::ServerConfig> {
    let chain = certificates(&tls.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&tls.key)
        .with_context(|| format!("cannot read a key from {}", tls.key.display()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        rustls::ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let builder = match &tls.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path)? {
                roots.add(certificate)?;
            }
            builder.with_client_cert_verifier(
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?,
            )
        }
    };
    builder.with_single_cert(chain, key).context("the certificate and the key do not match")
}
