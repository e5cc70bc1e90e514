//! Makes a CA, and the one certificate that it signs.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use thiserror::Error;
use time::OffsetDateTime;

use super::settings::CertificateSettings;

/// Clocks of nodes differ.
const BACKDATED: Duration = Duration::from_hours(1);

/// A certificate could not be made.
#[derive(Debug, Error)]
pub(super) enum IssueError {
    /// By its names or keys.
    #[error("no certificate can be made: {0}")]
    Make(#[from] rcgen::Error),
    /// By its time.
    #[error("no certificate can be made for this time: {0}")]
    Time(#[from] time::error::ComponentRange),
}

/// PEM, all three.
#[derive(Debug, Clone)]
pub(super) struct Issued {
    pub(super) authority: String,
    pub(super) certificate: String,
    pub(super) key: String,
}

/// `now` is in seconds since 1970.
pub(super) fn issue(now: i64, settings: &CertificateSettings) -> Result<Issued, IssueError> {
    let ca_key = KeyPair::generate()?;
    let mut ca = valid(CertificateParams::default(), now, settings.ca_validity)?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    // Another name for each: a client looks for the issuer by its name.
    ca.distinguished_name.push(DnType::CommonName, format!("{} CA {now}", settings.service_name()));
    let authority = ca.self_signed(&ca_key)?.pem();
    let issuer = Issuer::new(ca, ca_key);

    let key = KeyPair::generate()?;
    let validity = settings.validity.min(settings.ca_validity);
    let mut params = valid(CertificateParams::new(settings.names())?, now, validity)?;
    params.distinguished_name.push(DnType::CommonName, settings.service_name());
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, &issuer)?.pem();
    Ok(Issued { authority, certificate, key: key.serialize_pem() })
}

fn valid(
    mut params: CertificateParams,
    now: i64,
    validity: Duration,
) -> Result<CertificateParams, time::error::ComponentRange> {
    let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    let backdated = seconds(BACKDATED.min(validity / 10));
    params.not_before = OffsetDateTime::from_unix_timestamp(now.saturating_sub(backdated))?;
    params.not_after = OffsetDateTime::from_unix_timestamp(now.saturating_add(seconds(validity)))?;
    Ok(params)
}
