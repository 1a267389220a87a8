//! The TLS certificate, which is read again when its files change. Open connections keep the old one.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use crate::source::unreadable;
use anyhow::{Context as _, Result, ensure};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// The files and their content.
#[derive(Debug)]
pub struct Certificate {
    files: [PathBuf; 2],
    current: RwLock<(Arc<CertifiedKey>, [Vec<u8>; 2])>,
}

impl Certificate {
    /// Reads the files.
    ///
    /// # Errors
    /// Returns an error when they cannot be read or do not match.
    pub fn load(certificate: &Path, key: &Path) -> Result<Arc<Certificate>> {
        let files = [certificate.to_owned(), key.to_owned()];
        let texts = read(&files)?;
        let current = RwLock::new((parse(&files, &texts)?, texts));
        Ok(Arc::new(Certificate { files, current }))
    }

    /// Reads them again; returns `true` when they have changed.
    ///
    /// # Errors
    /// Returns an error when they do not match, for example while they are being written; then the previous certificate
    /// stays in use.
    pub fn reload(&self) -> Result<bool> {
        let texts = read(&self.files)?;
        if self.current.read().unwrap_or_else(PoisonError::into_inner).1 == texts {
            return Ok(false);
        }
        let key = parse(&self.files, &texts)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = (key, texts);
        Ok(true)
    }

    /// A server configuration that always presents the current certificate.
    ///
    /// # Errors
    /// Never fails with the built-in provider.
    pub fn server(self: &Arc<Self>) -> Result<Arc<rustls::ServerConfig>> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        Ok(Arc::new(config))
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner).0))
    }
}

fn read(files: &[PathBuf; 2]) -> Result<[Vec<u8>; 2]> {
    let read = |path: &Path| std::fs::read(path).map_err(|error| unreadable("cannot read", path, &error));
    let [certificate, key] = files;
    Ok([read(certificate)?, read(key)?])
}

fn parse(files: &[PathBuf; 2], texts: &[Vec<u8>; 2]) -> Result<Arc<CertifiedKey>> {
    let ([certificate, key], [chain, secret]) = (files, texts);
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain)
        .collect::<Result<_, _>>()
        .with_context(|| format!("{} is not PEM", certificate.display()))?;
    ensure!(!chain.is_empty(), "{} has no certificate in PEM", certificate.display());
    let secret =
        PrivateKeyDer::from_pem_slice(secret).with_context(|| format!("{} has no key in PEM", key.display()))?;
    let provider = rustls::crypto::ring::default_provider();
    let key = CertifiedKey::from_der(chain, secret, &provider).context("the certificate and the key do not match")?;
    Ok(Arc::new(key))
}
