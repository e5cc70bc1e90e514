//! Whether the API server would take a certificate, judged as a TLS client does.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, Error, RootCertStore};

use super::authorities::valid_authorities;
use super::fault::CertificateFault;
use super::names::lacking;
use super::plan::{Names, Usable};
use super::secret::Pair;
use super::validity::Validity;

static PROVIDER: LazyLock<Arc<CryptoProvider>> =
    LazyLock::new(|| Arc::new(rustls::crypto::ring::default_provider()));

/// A pair of certificate and key, and what is wrong with it.
#[derive(Debug)]
pub(super) struct Inspected {
    /// What can be served, although it may be of no use.
    pub(super) key: Option<Arc<CertifiedKey>>,
    pub(super) validity: Option<Validity>,
    pub(super) fault: Option<CertificateFault>,
}

impl Inspected {
    /// The time in which it is valid, if the API server takes it, and whether it is for all of `names`.
    pub(super) fn usable(&self, names: &[String]) -> Option<Usable> {
        let validity = self.validity.filter(|_| self.fault.is_none())?;
        let leaf = self.key.as_ref()?.cert.first()?;
        let names = if lacking(leaf, names).is_empty() { Names::All } else { Names::Lacking };
        Some(Usable { validity, names })
    }

    fn unusable(fault: CertificateFault) -> Self {
        Self { key: None, validity: None, fault: Some(fault) }
    }
}

/// Judges a pair that was signed by one of `authorities`, PEM, for the name by which the API server calls.
pub(super) fn inspect(pair: &Pair<'_>, authorities: Option<&[u8]>, name: &str, now: i64) -> Inspected {
    let (chain, key) = match load(pair) {
        Ok(loaded) => loaded,
        Err(fault) => return Inspected::unusable(fault),
    };
    let Some(validity) = chain.first().and_then(|leaf| Validity::of_certificate(leaf)) else {
        return Inspected::unusable(CertificateFault::NoCertificate(pair.certificate_key));
    };
    let fault = verify(&chain, validity, authorities, name, now).err();
    Inspected { key: Some(key), validity: Some(validity), fault }
}

/// The CA, PEM, of a pair that can be used: one of `authorities`.
pub(super) fn issuing_authority(
    pair: &Pair<'_>,
    authorities: Option<&[u8]>,
    name: &str,
    now: i64,
) -> Option<String> {
    let valid = valid_authorities(authorities?, now, usize::MAX);
    valid.into_iter().find(|authority| inspect(pair, Some(authority.as_bytes()), name, now).fault.is_none())
}

fn load(pair: &Pair<'_>) -> Result<(Vec<CertificateDer<'static>>, Arc<CertifiedKey>), CertificateFault> {
    let pem = pair.certificate.ok_or(CertificateFault::Missing(pair.certificate_key))?;
    let key = pair.key.ok_or(CertificateFault::Missing(pair.key_key))?;
    let chain = certificates(pem, pair.certificate_key)?;
    let unusable = |cause: String| CertificateFault::Key { key: pair.key_key, cause };
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| unusable(error.to_string()))?;
    match CertifiedKey::from_der(chain.clone(), key, &PROVIDER) {
        Ok(certified) => Ok((chain, Arc::new(certified))),
        Err(Error::InconsistentKeys(_)) => Err(CertificateFault::OtherKey),
        Err(error @ Error::InvalidCertificate(_)) => Err(CertificateFault::Other(error.to_string())),
        Err(error) => Err(unusable(error.to_string())),
    }
}

fn certificates(pem: &[u8], key: &'static str) -> Result<Vec<CertificateDer<'static>>, CertificateFault> {
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let parsed = parsed.ok().filter(|parsed| !parsed.is_empty());
    parsed.ok_or(CertificateFault::NoCertificate(key))
}

fn verify(
    chain: &[CertificateDer<'static>],
    validity: Validity,
    authorities: Option<&[u8]>,
    name: &str,
    now: i64,
) -> Result<(), CertificateFault> {
    let authorities = authorities.ok_or(CertificateFault::Missing("ca.crt"))?;
    let authorities = certificates(authorities, "ca.crt")?;
    let (leaf, intermediates) = chain.split_first().ok_or(CertificateFault::Missing("tls.crt"))?;
    if now >= validity.not_after {
        return Err(CertificateFault::Expired(validity.not_after));
    }
    if now < validity.not_before {
        return Err(CertificateFault::NotYetValid(validity.not_before));
    }
    if authorities.iter().all(|authority| authority == leaf) {
        return Err(CertificateFault::LeafAsAuthority);
    }
    let other = |error: &dyn std::fmt::Display| CertificateFault::Other(error.to_string());
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(authorities);
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&PROVIDER));
    let verifier = verifier.build().map_err(|error| other(&error))?;
    let at = UnixTime::since_unix_epoch(Duration::from_secs(now.max(0).unsigned_abs()));
    let server = ServerName::try_from(name).map_err(|error| other(&error))?;
    match verifier.verify_server_cert(leaf, intermediates, &server, &[], at) {
        Ok(_) => Ok(()),
        Err(Error::InvalidCertificate(error)) => Err(rejected(&error, name)),
        Err(error) => Err(other(&error)),
    }
}

fn rejected(error: &CertificateError, name: &str) -> CertificateFault {
    match error {
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            CertificateFault::Name(name.to_owned())
        }
        CertificateError::UnknownIssuer | CertificateError::BadSignature => CertificateFault::UnknownIssuer,
        // The error of rustls-webpki, which is a type of a crate that rustls does not show.
        error if format!("{error:?}").contains("CaUsedAsEndEntity") => CertificateFault::IsAuthority,
        error => CertificateFault::Other(error.to_string()),
    }
}

#[cfg(test)]
mod tests;
