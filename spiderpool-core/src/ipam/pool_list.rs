//! Lists of pools as users write them: names, and wildcards that stand for all pools with such names.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use super::IpamError;
use crate::error_list::quoted;
use crate::ip::Family;
use crate::names::{IfName, NameError, PoolName};

/// Pools by family.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PoolLists {
    /// IPv4 pools, best first.
    pub ipv4: Vec<PoolReference>,
    /// IPv6 pools, best first.
    pub ipv6: Vec<PoolReference>,
}

/// An entry of a list of pools.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PoolReference {
    /// One pool.
    Name(PoolName),
    /// The pools whose names match.
    Wildcard(PoolWildcard),
}

/// A pattern for names of pools, with the meaning of Go's `path/filepath.Match`: `*` stands for any text, `?` for one
/// character, `[a-f]` for one of these, `[^a-f]` for one of the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolWildcard {
    text: String,
    pattern: glob::Pattern,
}

/// Why an entry of a list of pools is none.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReferenceError {
    /// Not a pool's name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Not a wildcard.
    #[error("the wildcard {text:?} for IPPools is invalid: {cause}")]
    Wildcard {
        /// As it was written.
        text: String,
        /// What is wrong with it.
        cause: String,
    },
}

impl PoolLists {
    /// The entries of a family.
    pub fn of(&self, family: Family) -> &[PoolReference] {
        match family {
            Family::V4 => &self.ipv4,
            Family::V6 => &self.ipv6,
        }
    }

    /// Whether nothing is listed.
    pub fn is_empty(&self) -> bool {
        self.ipv4.is_empty() && self.ipv6.is_empty()
    }

    /// The lists, or what `invalid` makes of the first entry that is none.
    pub(super) fn parse(
        ipv4: &[String],
        ipv6: &[String],
        invalid: impl Fn(String) -> IpamError,
    ) -> Result<Self, IpamError> {
        let parse = |entries: &[String]| {
            let parsed = entries.iter().map(|entry| entry.parse::<PoolReference>());
            parsed.collect::<Result<_, _>>().map_err(|error| invalid(error.to_string()))
        };
        Ok(Self { ipv4: parse(ipv4)?, ipv6: parse(ipv6)? })
    }
}

impl FromStr for PoolReference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if is_wildcard(text) { Ok(Self::Wildcard(text.parse()?)) } else { Ok(Self::Name(text.parse()?)) }
    }
}

impl FromStr for PoolWildcard {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let invalid = |cause: &str| ReferenceError::Wildcard { text: quoted(text), cause: cause.to_owned() };
        // What one of the two languages takes for itself, and the other for a character that no pool's name has.
        if text.contains('\\') || text.contains("[!") {
            return Err(invalid("it may not have '\\' or '[!': other characters are written '[^a-f]'"));
        }
        let mut translated = text.replace("[^", "[!");
        while translated.contains("**") {
            translated = translated.replace("**", "*");
        }
        let pattern = glob::Pattern::new(&translated).map_err(|error| invalid(error.msg))?;
        Ok(Self { text: text.to_owned(), pattern })
    }
}

impl PoolWildcard {
    /// Whether a pool of this name is meant.
    pub fn matches(&self, pool: &PoolName) -> bool {
        self.pattern.matches(pool.as_str())
    }
}

impl fmt::Display for PoolWildcard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Whether upstream would take an entry of a list for a wildcard.
fn is_wildcard(text: &str) -> bool {
    text.contains(['?', '*']) || (text.contains('[') && text.contains(']'))
}

/// The names that a list comes to. `matching` answers with the pools that a wildcard means, and their families as far as
/// they are known; these come by name in its place. A pool comes once, where it is named first. One that is listed twice by
/// its name is an error.
pub(super) fn expand(
    list: &[PoolReference],
    family: Family,
    nic: &IfName,
    matching: &impl Fn(&PoolWildcard) -> Vec<(PoolName, Option<Family>)>,
) -> Result<Vec<PoolName>, IpamError> {
    let (mut names, mut listed, mut known) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
    for reference in list {
        match reference {
            PoolReference::Name(name) => {
                if !listed.insert(name) {
                    return Err(IpamError::DuplicatePool { pool: name.clone(), nic: nic.clone() });
                }
                if known.insert(name.clone()) {
                    names.push(name.clone());
                }
            }
            PoolReference::Wildcard(wildcard) => {
                let mut found = matching(wildcard);
                found.retain(|(_, of)| of.is_none_or(|of| of == family));
                found.sort();
                names.extend(
                    found.into_iter().map(|(name, _)| name).filter(|name| known.insert(name.clone())),
                );
            }
        }
    }
    Ok(names)
}

/// The wildcards of a list, as they were written.
pub(super) fn wildcards(list: &[PoolReference]) -> Vec<String> {
    let wildcards = list.iter().filter_map(|reference| match reference {
        PoolReference::Wildcard(wildcard) => Some(wildcard.to_string()),
        PoolReference::Name(_) => None,
    });
    wildcards.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(wildcard: &str, matching: &[&str], other: &[&str]) {
        let parsed: PoolWildcard = wildcard.parse().unwrap();
        let matches = |name: &&&str| parsed.matches(&name.parse().unwrap());
        assert_eq!(matching.iter().find(|name| !matches(name)), None, "{wildcard}");
        assert_eq!(other.iter().find(matches), None, "{wildcard}");
        assert_eq!(parsed.to_string(), wildcard);
    }

    /// What `filepath.Match` of Go 1.26 answers.
    #[test]
    fn wildcards_mean_what_they_do_in_go() {
        check("v4-*", &["v4-a", "v4-a.b-c"], &["v4", "a-v4-a"]);
        check("*", &["a", "a.b"], &[]);
        check("a**b", &["ab", "axyb"], &["a", "abc"]);
        check("v?", &["v4", "v6"], &["v", "v46"]);
        check("v[46]-a", &["v4-a", "v6-a"], &["v5-a"]);
        check("[a-c]*[^0-9]", &["ax", "b9x"], &["a9", "dx", "a"]);
        check("a]*", &[], &["a", "ab"]);
    }

    #[test]
    fn a_wildcard_that_is_none_is_refused_with_its_text() {
        for text in ["a[*", "[]*]x[", "a\\*", "[!a]*", "***["] {
            let refused = text.parse::<PoolReference>().unwrap_err().to_string();
            assert!(
                refused.contains(&format!("the wildcard {text:?} for IPPools is invalid: ")),
                "{refused}"
            );
        }
        assert!(matches!("a[b".parse::<PoolReference>(), Err(ReferenceError::Name(_))));
    }

    fn expanded(list: &[&str], family: Family) -> Result<Vec<String>, String> {
        let list: Vec<PoolReference> = list.iter().map(|entry| entry.parse().unwrap()).collect();
        let pools =
            [("b4", Some(Family::V4)), ("a4", Some(Family::V4)), ("a6", Some(Family::V6)), ("new", None)];
        let pools = pools.map(|(name, family)| (name.parse::<PoolName>().unwrap(), family));
        let matching = |wildcard: &PoolWildcard| {
            pools.iter().filter(|(name, _)| wildcard.matches(name)).cloned().collect::<Vec<_>>()
        };
        let nic = "eth0".parse().unwrap();
        let names = expand(&list, family, &nic, &matching);
        names.map(|names| names.iter().map(ToString::to_string).collect()).map_err(|error| error.to_string())
    }

    #[track_caller]
    fn check_expanded(list: &[&str], family: Family, expect: Result<&[&str], &str>) {
        let expect = expect.map(|names| names.iter().map(ToString::to_string).collect());
        assert_eq!(expanded(list, family), expect.map_err(ToOwned::to_owned));
    }

    /// One whose family is not known yet has to be read before anybody can say that it is not meant.
    #[test]
    fn a_wildcard_stands_for_the_pools_of_the_family_by_name() {
        use Family::{V4, V6};
        check_expanded(&["*"], V4, Ok(&["a4", "b4", "new"]));
        check_expanded(&["*"], V6, Ok(&["a6", "new"]));
        check_expanded(&["b4", "?4"], V4, Ok(&["b4", "a4"]));
        check_expanded(&["a*", "missing"], V4, Ok(&["a4", "missing"]));
        check_expanded(&[], V4, Ok(&[]));
    }

    /// Upstream fails the pod.
    #[test]
    fn a_pool_that_is_named_and_matched_comes_once_and_one_that_is_named_twice_is_an_error() {
        check_expanded(&["a4", "a*", "b4"], Family::V4, Ok(&["a4", "b4"]));
        check_expanded(&["a*", "a4", "[ab]4"], Family::V4, Ok(&["a4", "b4"]));
        let duplicate = "wrong input, duplicate IPPool a4 specified for NIC eth0";
        check_expanded(&["a4", "a*", "a4"], Family::V4, Err(duplicate));
    }
}
