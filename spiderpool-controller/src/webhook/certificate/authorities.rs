//! The CAs of a Secret.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::validity::Validity;

const END: &str = "-----END CERTIFICATE-----";

/// The first CAs, which are the newest, that are still valid, each as PEM: at most `limit`. What is no certificate is left
/// out.
pub(super) fn valid_authorities(authorities: &[u8], now: i64, limit: usize) -> Vec<String> {
    let text = String::from_utf8_lossy(authorities);
    let blocks = text.split_inclusive(END).filter(|block| block.contains(END));
    let is_valid = |block: &&str| {
        let der = CertificateDer::from_pem_slice(block.as_bytes()).ok();
        der.and_then(|der| Validity::of_certificate(&der)).is_some_and(|validity| now < validity.not_after)
    };
    blocks.map(str::trim).filter(is_valid).take(limit).map(|block| format!("{block}\n")).collect()
}
