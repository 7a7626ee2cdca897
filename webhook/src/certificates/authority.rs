//! Makes authorities and certificates.

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use time::OffsetDateTime;

use super::plan::Policy;
use super::{Pair, validity};

/// A clock that is behind ours by less than this takes what we make for valid at once.
const BEHIND: i64 = 300;

/// Why none could be made.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// The library says so.
    #[error("make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// A time that no certificate can hold.
    #[error("make a certificate: {0}")]
    Time(#[from] time::error::ComponentRange),
    /// The authority can't be read.
    #[error("read the authority: {0}")]
    Authority(#[from] super::CertificateError),
}

/// An authority and its key, as PEM.
#[derive(Clone)]
pub struct Authority {
    /// Its certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

fn params(names: &[String], name: &str, from: i64, until: i64) -> Result<CertificateParams, MakeError> {
    let mut params = CertificateParams::new(names)?;
    params.not_before = OffsetDateTime::from_unix_timestamp(from)?;
    params.not_after = OffsetDateTime::from_unix_timestamp(until)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    Ok(params)
}

fn seconds(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX / 4)
}

impl Authority {
    /// A new one, from now on.
    ///
    /// # Errors
    /// When none can be made.
    pub fn make(now: Timestamp, policy: &Policy) -> Result<Self, MakeError> {
        let (from, key) = (now.as_second(), KeyPair::generate()?);
        // No two are called the same, so that a certificate says by its issuer's name whose it is.
        let name = format!("aldaas webhook {}", now.as_nanosecond());
        let mut params =
            params(&[], &name, from - BEHIND.min(seconds(policy.overlap)), from + seconds(policy.authority))?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Ok(Self { certificate: params.self_signed(&key)?.pem(), key: key.serialize_pem() })
    }

    /// A new certificate for these names, from now on.
    ///
    /// # Errors
    /// When none can be made.
    pub fn sign(&self, names: &[String], now: Timestamp, policy: &Policy) -> Result<Pair, MakeError> {
        let issuer = Issuer::from_ca_cert_pem(&self.certificate, KeyPair::from_pem(&self.key)?)?;
        let last = validity(self.certificate.as_bytes(), "ca.crt")?.until.as_second();
        let (from, key) = (now.as_second(), KeyPair::generate()?);
        let until = (from + seconds(policy.certificate)).min(last);
        let mut params = params(names, "aldaas webhook", from - BEHIND.min(seconds(policy.overlap)), until)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        Ok(Pair {
            certificate: params.signed_by(&key, &issuer)?.pem().into_bytes(),
            key: key.serialize_pem().into_bytes(),
            authorities: self.certificate.clone().into_bytes(),
        })
    }
}
