use k8s_openapi::api::core::v1::Secret;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

use super::*;
use crate::config::CertificateMethod;
use crate::webhook::certificate::issue::issue;
use crate::webhook::certificate::secret;
use crate::webhook::certificate::settings::{CertificateSettings, example};

const NOW: i64 = 1_800_000_000;

fn settings() -> CertificateSettings {
    example(CertificateMethod::Auto)
}

fn fresh() -> Secret {
    secret::replaced(Secret::default(), &issue(NOW, &settings()).unwrap(), NOW)
}

fn with(secret: &Secret, key: &str, text: &str) -> Secret {
    let mut secret = secret.clone();
    secret.data.as_mut().unwrap().insert(key.to_owned(), k8s_openapi::ByteString(text.as_bytes().to_vec()));
    secret
}

fn text(secret: &Secret, key: &str) -> String {
    String::from_utf8(secret.data.as_ref().unwrap()[key].0.clone()).unwrap()
}

fn fault_at(secret: &Secret, names: &[String], now: i64) -> Option<CertificateFault> {
    inspect(&secret::served(secret), secret::authorities(secret), names, now).fault
}

fn fault(secret: &Secret) -> Option<CertificateFault> {
    fault_at(secret, &settings().names(), NOW)
}

#[test]
fn a_certificate_of_ours_is_taken_for_all_its_names() {
    let secret = fresh();
    assert_eq!(fault(&secret), None);
    let inspected = inspect(&secret::served(&secret), secret::authorities(&secret), &settings().names(), NOW);
    let validity = inspected.usable().unwrap();
    assert_eq!(validity.not_after - NOW, 7200);
    assert!(validity.not_before < NOW && inspected.key.is_some());
}

#[test]
fn what_is_wrong_is_said() {
    let secret = fresh();
    let names = settings().names();
    assert_eq!(fault_at(&secret, &names, NOW + 7200), Some(CertificateFault::Expired(NOW + 7200)));
    assert!(matches!(fault_at(&secret, &names, NOW - 7200), Some(CertificateFault::NotYetValid(_))));
    let other = ["other.net.svc".to_owned()];
    assert_eq!(fault_at(&secret, &other, NOW), Some(CertificateFault::Name(other[0].clone())));
    assert_eq!(fault(&Secret::default()), Some(CertificateFault::Missing("tls.crt")));
    assert_eq!(fault(&with(&secret, "tls.key", "")), Some(CertificateFault::Missing("tls.key")));
    assert_eq!(fault(&with(&secret, "tls.crt", "garbage")), Some(CertificateFault::NoCertificate("tls.crt")));
    assert_eq!(fault(&with(&secret, "ca.crt", "garbage")), Some(CertificateFault::NoCertificate("ca.crt")));
    assert!(matches!(fault(&with(&secret, "tls.key", "garbage")), Some(CertificateFault::Key { .. })));
    let stranger = fresh();
    let other_key = with(&secret, "tls.key", &text(&stranger, "tls.key"));
    assert_eq!(fault(&other_key), Some(CertificateFault::OtherKey));
    let other_ca = with(&secret, "ca.crt", &text(&stranger, "ca.crt"));
    assert_eq!(fault(&other_ca), Some(CertificateFault::UnknownIssuer));
}

#[test]
fn a_ca_is_told_from_a_servers_certificate() {
    let secret = fresh();
    let leaf_as_ca = with(&secret, "ca.crt", &text(&secret, "tls.crt"));
    assert_eq!(fault(&leaf_as_ca), Some(CertificateFault::LeafAsAuthority));
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(settings().names()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_as_leaf = with(&secret, "tls.crt", &params.self_signed(&key).unwrap().pem());
    let ca_as_leaf = with(&ca_as_leaf, "tls.key", &key.serialize_pem());
    assert_eq!(fault(&ca_as_leaf), Some(CertificateFault::IsAuthority));
}

/// Both CAs are trusted until nobody has a certificate of the old one.
#[test]
fn a_renewal_keeps_the_old_ca_and_the_old_certificate_until_it_is_promoted() {
    let first = fresh();
    let next = issue(NOW + 5000, &settings()).unwrap();
    let prepared = secret::with_prepared(first.clone(), &next, NOW + 5000);
    let names = settings().names();
    assert_eq!(fault_at(&prepared, &names, NOW + 5000), None);
    assert_eq!(text(&prepared, "tls.crt"), text(&first, "tls.crt"));
    let pair = secret::prepared(&prepared).unwrap();
    let inspected = inspect(&pair, secret::authorities(&prepared), &names, NOW + 5000);
    assert_eq!(inspected.fault, None);
    let promoted = secret::promoted(prepared);
    assert!(secret::prepared(&promoted).is_none());
    assert_eq!(text(&promoted, "tls.crt"), next.certificate);
    assert_eq!(fault_at(&promoted, &names, NOW + 7300), None);
    // A replica that has not seen it yet serves the old one.
    let old =
        with(&with(&promoted, "tls.crt", &text(&first, "tls.crt")), "tls.key", &text(&first, "tls.key"));
    assert_eq!(fault_at(&old, &names, NOW + 7000), None);
    let third = secret::with_prepared(promoted, &issue(NOW + 9000, &settings()).unwrap(), NOW + 9000);
    assert_eq!(text(&third, "ca.crt").matches("BEGIN CERTIFICATE").count(), 2);
    assert!(!text(&third, "ca.crt").contains(text(&first, "ca.crt").trim()));
}
