//! The names that a certificate is for.

use std::net::IpAddr;

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Which of `names` a certificate, DER, does not list.
pub(super) fn lacking(certificate: &[u8], names: &[String]) -> Vec<String> {
    let parsed = X509Certificate::from_der(certificate).ok();
    let listed = parsed.as_ref().and_then(|(_, parsed)| parsed.subject_alternative_name().ok().flatten());
    let listed = listed.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
    names.iter().filter(|name| !listed.iter().any(|one| is(one, name))).cloned().collect()
}

fn is(listed: &GeneralName<'_>, name: &str) -> bool {
    match (listed, name.parse::<IpAddr>()) {
        (GeneralName::DNSName(text), Err(_)) => text.eq_ignore_ascii_case(name),
        (GeneralName::IPAddress(bytes), Ok(IpAddr::V4(address))) => **bytes == address.octets(),
        (GeneralName::IPAddress(bytes), Ok(IpAddr::V6(address))) => **bytes == address.octets(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_as_they_are_listed() {
        let names = ["a.test", "*.b.test", "10.0.0.1", "fd00::1"].map(str::to_owned);
        let made = rcgen::generate_simple_self_signed(names.to_vec()).unwrap();
        assert_eq!(lacking(made.cert.der(), &names), [""; 0]);
        let others = ["c.b.test", "10.0.0.2", "a.test"].map(str::to_owned);
        assert_eq!(lacking(made.cert.der(), &others), ["c.b.test", "10.0.0.2"]);
        assert_eq!(lacking(b"garbage", &others), others);
    }
}
