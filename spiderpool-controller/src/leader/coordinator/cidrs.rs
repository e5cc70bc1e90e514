//! CIDRs as the sources name them: parsed, each once, in the order in which they were found.

use std::fmt;

use ipnet::IpNet;
use spiderpool_core::field_error::FieldError;

/// CIDRs, and the texts that are none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Cidrs {
    /// Without host bits, each once.
    pub(super) nets: Vec<IpNet>,
    /// What was left out.
    pub(super) invalid: Vec<InvalidCidr>,
}

/// A text that should be a CIDR.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct InvalidCidr {
    /// Kind and name of the object that has it.
    object: String,
    error: FieldError,
}

impl fmt::Display for InvalidCidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.object, self.error)
    }
}

impl Cidrs {
    /// Adds what `path` of the object says.
    pub(super) fn add(&mut self, object: &str, path: impl Into<String>, text: &str) {
        if let Ok(net) = text.trim().parse::<IpNet>() {
            self.insert(net);
        } else {
            let error = FieldError::invalid(path, text, "is not a CIDR and is left out");
            self.invalid.push(InvalidCidr { object: object.to_owned(), error });
        }
    }

    /// Adds each part of a list whose parts are separated by spaces or commas.
    pub(super) fn add_list(&mut self, object: &str, path: &str, text: &str) {
        for part in text.split(|c: char| c == ',' || c.is_whitespace()).filter(|part| !part.is_empty()) {
            self.add(object, path, part);
        }
    }

    /// Adds those of another source.
    pub(super) fn extend(&mut self, other: Self) {
        other.nets.into_iter().for_each(|net| self.insert(net));
        self.invalid.extend(other.invalid);
    }

    /// As a status lists them.
    pub(super) fn texts(&self) -> Vec<String> {
        self.nets.iter().map(ToString::to_string).collect()
    }

    fn insert(&mut self, net: IpNet) {
        let net = net.trunc();
        if !self.nets.contains(&net) {
            self.nets.push(net);
        }
    }
}

impl From<Vec<IpNet>> for Cidrs {
    fn from(nets: Vec<IpNet>) -> Self {
        Self { nets, invalid: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_counts_once_and_what_is_no_cidr_is_named() {
        let mut cidrs = Cidrs::default();
        cidrs.add_list("ConfigMap a/b", "data.c", " 10.1.2.3/16,fd00::/48\n10.1.0.0/16  10.2.0.0 ");
        assert_eq!(cidrs.texts(), ["10.1.0.0/16", "fd00::/48"]);
        let invalid: Vec<_> = cidrs.invalid.iter().map(ToString::to_string).collect();
        assert_eq!(
            invalid,
            ["ConfigMap a/b: data.c: Invalid value: \"10.2.0.0\": is not a CIDR and is left out"]
        );
    }
}
