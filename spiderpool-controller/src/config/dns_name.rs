//! DNS names, as a certificate has them.

use spiderpool_core::names::is_subdomain;

/// In lower case and without the dot of the root.
fn normalized(text: &str) -> String {
    let text = text.trim().to_ascii_lowercase();
    text.strip_suffix('.').map(ToOwned::to_owned).unwrap_or(text)
}

/// A name, whose first label may be `*`.
pub(super) fn certificate_name(text: &str) -> Result<String, String> {
    let name = normalized(text);
    if is_subdomain(name.strip_prefix("*.").unwrap_or(&name)) {
        Ok(name)
    } else {
        Err(format!("{text:?} is not a DNS name"))
    }
}

/// A domain.
pub(super) fn domain(text: &str) -> Result<String, String> {
    let name = normalized(text);
    if is_subdomain(&name) { Ok(name) } else { Err(format!("{text:?} is not a DNS domain")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_a_certificate_has_them() {
        assert_eq!(domain(" Cluster.Local. ").unwrap(), "cluster.local");
        assert_eq!(certificate_name("*.Example.test").unwrap(), "*.example.test");
        for wrong in ["", ".", "a..b", "*.a", "a b", "a_b", "10.0.0.1:443"] {
            assert!(domain(wrong).unwrap_err().contains("is not a DNS domain"), "{wrong}");
        }
        for wrong in ["", "*", "*.", "a.*.b", "**.a", "ä.test"] {
            assert!(certificate_name(wrong).unwrap_err().contains("is not a DNS name"), "{wrong}");
        }
    }
}
