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
    fresh_at(NOW)
}

fn fresh_at(now: i64) -> Secret {
    secret::replaced(Secret::default(), &issue(now, &settings()).unwrap(), now)
}

fn with(secret: &Secret, key: &str, text: &str) -> Secret {
    let mut secret = secret.clone();
    secret.data.as_mut().unwrap().insert(key.to_owned(), k8s_openapi::ByteString(text.as_bytes().to_vec()));
    secret
}

fn text(secret: &Secret, key: &str) -> String {
    String::from_utf8(secret.data.as_ref().unwrap()[key].0.clone()).unwrap()
}

fn fault_at(secret: &Secret, name: &str, now: i64) -> Option<CertificateFault> {
    inspect(&secret::served(secret), secret::authorities(secret), name, now).fault
}

fn fault(secret: &Secret) -> Option<CertificateFault> {
    fault_at(secret, &settings().service_name(), NOW)
}

#[test]
fn a_certificate_of_ours_is_taken_for_all_its_names() {
    let secret = fresh();
    assert_eq!(fault(&secret), None);
    let name = settings().service_name();
    let inspected = inspect(&secret::served(&secret), secret::authorities(&secret), &name, NOW);
    let usable = inspected.usable(&settings().names()).unwrap();
    assert_eq!((usable.validity.not_after - NOW, usable.names), (7200, Names::All));
    assert!(usable.validity.not_before < NOW && inspected.key.is_some());
}

/// As a replica of the next release finds it: what is served is of use all the same.
#[test]
fn a_certificate_without_further_names_is_used_and_known_to_lack_them() {
    let secret = fresh();
    let names = [settings().names(), vec!["*.new.test".to_owned()]].concat();
    let inspected =
        inspect(&secret::served(&secret), secret::authorities(&secret), &settings().service_name(), NOW);
    assert_eq!((inspected.fault.clone(), inspected.usable(&names).unwrap().names), (None, Names::Lacking));
    let wildcard = CertificateSettings { extra_names: names[3..].to_vec(), ..settings() };
    let secret = secret::replaced(Secret::default(), &issue(NOW, &wildcard).unwrap(), NOW);
    let inspected =
        inspect(&secret::served(&secret), secret::authorities(&secret), &settings().service_name(), NOW);
    assert_eq!(inspected.usable(&names).unwrap().names, Names::All);
}

#[test]
fn what_is_wrong_is_said() {
    let secret = fresh();
    let name = settings().service_name();
    assert_eq!(fault_at(&secret, &name, NOW + 7200), Some(CertificateFault::Expired(NOW + 7200)));
    assert!(matches!(fault_at(&secret, &name, NOW - 7200), Some(CertificateFault::NotYetValid(_))));
    let other = "other.net.svc";
    assert_eq!(fault_at(&secret, other, NOW), Some(CertificateFault::Name(other.to_owned())));
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
    let name = settings().service_name();
    let serving = serving_authority(&first, NOW + 5000);
    assert_eq!(serving.as_deref().map(str::trim), Some(text(&first, "ca.crt").trim()));
    let prepared = secret::with_prepared(first.clone(), &next, serving.as_ref());
    assert_eq!(fault_at(&prepared, &name, NOW + 5000), None);
    assert_eq!(text(&prepared, "tls.crt"), text(&first, "tls.crt"));
    let pair = secret::prepared(&prepared).unwrap();
    let inspected = inspect(&pair, secret::authorities(&prepared), &name, NOW + 5000);
    assert_eq!(inspected.fault, None);
    let promoted = secret::promoted(prepared);
    assert!(secret::prepared(&promoted).is_none());
    assert_eq!(text(&promoted, "tls.crt"), next.certificate);
    assert_eq!(fault_at(&promoted, &name, NOW + 7300), None);
    // A replica that has not seen it yet serves the old one.
    let old =
        with(&with(&promoted, "tls.crt", &text(&first, "tls.crt")), "tls.key", &text(&first, "tls.key"));
    assert_eq!(fault_at(&old, &name, NOW + 7000), None);
    let serving = serving_authority(&promoted, NOW + 9000);
    let third = secret::with_prepared(promoted, &issue(NOW + 9000, &settings()).unwrap(), serving.as_ref());
    assert_eq!(text(&third, "ca.crt").matches("BEGIN CERTIFICATE").count(), 2);
    assert!(!text(&third, "ca.crt").contains(text(&first, "ca.crt").trim()));
}

fn serving_authority(secret: &Secret, now: i64) -> Option<String> {
    let authorities = secret::authorities(secret);
    issuing_authority(&secret::served(secret), authorities, &settings().service_name(), now)
}

/// Nobody would trust what is served.
#[test]
fn a_certificate_that_is_prepared_twice_leaves_the_ca_of_the_one_that_is_served() {
    let mut secret = fresh();
    for now in [NOW + 10, NOW + 20, NOW + 30] {
        let serving = serving_authority(&secret, now);
        secret = secret::with_prepared(secret, &issue(now, &settings()).unwrap(), serving.as_ref());
        assert_eq!(fault_at(&secret, &settings().service_name(), now), None);
        let pair = secret::prepared(&secret).unwrap();
        let name = settings().service_name();
        assert_eq!(inspect(&pair, secret::authorities(&secret), &name, now).fault, None);
    }
}
