//! The certificate that is served: read from a mounted Secret, or made and renewed by the webhook itself, and replaced without
//! a connection that breaks.

pub mod authority;
pub mod files;
pub mod own;
pub mod plan;

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use axum_server::tls_rustls::RustlsConfig;
use jiff::Timestamp;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::metrics::Metrics;

/// Why a certificate can't be served.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// There is none in the text.
    #[error("there is no certificate in {0}")]
    NoCertificate(&'static str),
    /// There is no key in the text.
    #[error("there is no private key in {0}")]
    NoKey(&'static str),
    /// It is none.
    #[error("the certificate can't be read: {0}")]
    Broken(String),
    /// The key is of another certificate, or of a kind that is not known.
    #[error("certificate and key do not go together: {0}")]
    Mismatch(#[from] rustls::Error),
    /// It is over, and the one that is served is not.
    #[error("the certificate expired at {0}; the one before it is kept")]
    Expired(Timestamp),
}

/// A certificate and its key, as PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Pair {
    /// The certificate, and those between it and its authority.
    pub certificate: Vec<u8>,
    /// The private key.
    pub key: Vec<u8>,
    /// Those who signed it, where that is known: only their expiry is of interest.
    pub authorities: Vec<u8>,
}

/// When a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// From then.
    pub from: Timestamp,
    /// Until then.
    pub until: Timestamp,
}

/// When the first certificate of a PEM text is valid.
///
/// # Errors
/// When there is none.
pub fn validity(pem: &[u8], what: &'static str) -> Result<Validity, CertificateError> {
    let der = CertificateDer::from_pem_slice(pem).map_err(|_| CertificateError::NoCertificate(what))?;
    validity_of(&der)
}

fn validity_of(der: &[u8]) -> Result<Validity, CertificateError> {
    let broken = |error: &dyn std::fmt::Display| CertificateError::Broken(error.to_string());
    let (_, certificate) = X509Certificate::from_der(der).map_err(|error| broken(&error))?;
    let stamp = |seconds: i64| Timestamp::from_second(seconds).map_err(|error| broken(&error));
    let validity = certificate.validity();
    Ok(Validity {
        from: stamp(validity.not_before.timestamp())?,
        until: stamp(validity.not_after.timestamp())?,
    })
}

fn server_config(pair: &Pair) -> Result<(ServerConfig, Validity), CertificateError> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&pair.certificate)
        .collect::<Result<_, _>>()
        .map_err(|error| CertificateError::Broken(error.to_string()))?;
    let first = chain.first().ok_or(CertificateError::NoCertificate("tls.crt"))?;
    let validity = validity_of(first)?;
    let key = PrivateKeyDer::from_pem_slice(&pair.key).map_err(|_| CertificateError::NoKey("tls.key"))?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    // The API server speaks nothing else to webhooks.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok((config, validity))
}

/// The certificate that is served now.
pub struct Keeper {
    served: OnceLock<RustlsConfig>,
    now: Mutex<Option<(Pair, Validity)>>,
    metrics: Arc<Metrics>,
}

impl Keeper {
    /// Without a certificate yet.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { served: OnceLock::new(), now: Mutex::new(None), metrics }
    }

    /// What is served, as soon as there is anything.
    pub fn served(&self) -> Option<&RustlsConfig> {
        self.served.get()
    }

    /// Serves this from now on, if it is good and not what is served already. Connections that exist go on.
    ///
    /// # Errors
    /// When it is not good; what was served before is kept.
    pub fn offer(&self, pair: Pair, at: Timestamp) -> Result<bool, CertificateError> {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        if now.as_ref().is_some_and(|(served, _)| *served == pair) {
            return Ok(false);
        }
        let taken = server_config(&pair).and_then(|(config, validity)| {
            let better = now.as_ref().is_some_and(|(_, served)| served.until > at);
            match validity.until <= at && better {
                true => Err(CertificateError::Expired(validity.until)),
                false => Ok((Arc::new(config), validity)),
            }
        });
        let (config, validity) = taken.inspect_err(|_| self.metrics.certificate_refused())?;
        match self.served.get() {
            Some(served) => served.reload_from_config(config),
            None => drop(self.served.set(RustlsConfig::from_config(config))),
        }
        let authority = validity_of_first(&pair.authorities);
        self.metrics.certificate(validity.until, authority);
        tracing::info!(from = %validity.from, until = %validity.until, "serving this certificate");
        *now = Some((pair, validity));
        Ok(true)
    }

    /// Why it can't be served; nothing: it can.
    pub fn not_ready(&self) -> Option<String> {
        let now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        match &*now {
            None => Some("there is no certificate yet".to_owned()),
            Some((_, validity)) if validity.until <= Timestamp::now() => {
                Some(format!("the certificate expired at {}", validity.until))
            }
            Some(_) => None,
        }
    }
}

fn validity_of_first(authorities: &[u8]) -> Option<Timestamp> {
    validity(authorities, "ca.crt").ok().map(|validity| validity.until)
}
