//! The Secret's contents.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;

use super::authorities::valid_authorities;
use super::issue::Issued;

const AUTHORITY: &str = "ca.crt";

type Data = BTreeMap<String, ByteString>;

/// A certificate and its key, PEM, as they are stored.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pair<'a> {
    pub(super) certificate_key: &'static str,
    pub(super) certificate: Option<&'a [u8]>,
    pub(super) key_key: &'static str,
    pub(super) key: Option<&'a [u8]>,
}

const SERVED: (&str, &str) = ("tls.crt", "tls.key");
const NEXT: (&str, &str) = ("next.crt", "next.key");

fn pair<'a>(secret: &'a Secret, (certificate_key, key_key): (&'static str, &'static str)) -> Pair<'a> {
    let get = |key: &str| value(secret, key);
    Pair { certificate_key, certificate: get(certificate_key), key_key, key: get(key_key) }
}

fn value<'a>(secret: &'a Secret, key: &str) -> Option<&'a [u8]> {
    let value = secret.data.as_ref()?.get(key)?;
    (!value.0.is_empty()).then_some(&value.0)
}

/// What is served.
pub(super) fn served(secret: &Secret) -> Pair<'_> {
    pair(secret, SERVED)
}

/// What is served next.
pub(super) fn prepared(secret: &Secret) -> Option<Pair<'_>> {
    Some(pair(secret, NEXT)).filter(|pair| pair.certificate.is_some())
}

/// The CAs, PEM.
pub(super) fn authorities(secret: &Secret) -> Option<&[u8]> {
    value(secret, AUTHORITY)
}

/// With a certificate that is served at once. The newest CA stays beside its own: a replica may serve a certificate of it.
pub(super) fn replaced(mut secret: Secret, issued: &Issued, now: i64) -> Secret {
    let former = authorities(&secret).map(|all| valid_authorities(all, now, 1)).unwrap_or_default();
    let data = with_authority(&mut secret, issued, former.first());
    put(data, SERVED.0, &issued.certificate);
    put(data, SERVED.1, &issued.key);
    data.remove(NEXT.0);
    data.remove(NEXT.1);
    secret
}

/// With a certificate that is served next, in place of one that was prepared before. `serving` is the CA of the certificate
/// that is served until then.
pub(super) fn with_prepared(mut secret: Secret, issued: &Issued, serving: Option<&String>) -> Secret {
    let data = with_authority(&mut secret, issued, serving);
    put(data, NEXT.0, &issued.certificate);
    put(data, NEXT.1, &issued.key);
    secret
}

/// With the prepared certificate served.
pub(super) fn promoted(mut secret: Secret) -> Secret {
    let data = secret.data.get_or_insert_default();
    for (next, served) in [(NEXT.0, SERVED.0), (NEXT.1, SERVED.1)] {
        if let Some(value) = data.remove(next) {
            data.insert(served.to_owned(), value);
        }
    }
    secret
}

fn with_authority<'a>(secret: &'a mut Secret, issued: &Issued, former: Option<&String>) -> &'a mut Data {
    let data = secret.data.get_or_insert_default();
    let bundle = [issued.authority.as_str(), former.map(String::as_str).unwrap_or_default()].concat();
    put(data, AUTHORITY, &bundle);
    data
}

fn put(data: &mut Data, key: &str, text: &str) {
    data.insert(key.to_owned(), ByteString(text.as_bytes().to_vec()));
}
