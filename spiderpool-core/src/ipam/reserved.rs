//! SpiderReservedIPs: addresses that no pod gets.

use thiserror::Error;

use crate::error_list::ErrorList;
use crate::ip::{Family, IpRange, IpRangeError};

/// Why a SpiderReservedIP does not say which addresses it reserves: everything that is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("SpiderReservedIP {object} is invalid: {}: correct or delete it", ErrorList(.faults))]
pub struct ReservedError {
    /// The object.
    pub object: String,
    /// At least one, in order.
    pub faults: Vec<ReservedFault>,
}

/// An entry that is no range.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{path}: {problem}")]
pub struct ReservedFault {
    /// The field's path, `spec.ips[2]`.
    pub path: String,
    /// What is wrong with it.
    pub problem: IpRangeError,
    /// The entry.
    text: String,
}

impl ReservedError {
    /// Whether an address of the family may be meant.
    pub fn concerns(&self, family: Family) -> bool {
        let (ours, theirs) = match family {
            Family::V4 => ('.', ':'),
            Family::V6 => (':', '.'),
        };
        let is_theirs = |text: &str| text.contains(theirs) && !text.contains(ours);
        self.faults.iter().any(|fault| !is_theirs(&fault.text))
    }
}

/// The ranges of `spec.ips` of an object, as far as they are some, and what is wrong with the others.
pub fn parse_reserved(object: &str, ips: &[String]) -> (Vec<IpRange>, Option<ReservedError>) {
    let (mut ranges, mut faults) = (Vec::with_capacity(ips.len()), Vec::new());
    for (index, text) in ips.iter().enumerate() {
        match text.parse() {
            Ok(range) => ranges.push(range),
            Err(problem) => {
                let path = format!("spec.ips[{index}]");
                faults.push(ReservedFault { path, problem, text: text.clone() });
            }
        }
    }
    let error = (!faults.is_empty()).then(|| ReservedError { object: object.to_owned(), faults });
    (ranges, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_that_is_no_range_is_named_and_concerns_the_family_it_may_be_of() {
        let parse = |ips: &[&str]| {
            let ips: Vec<_> = ips.iter().map(ToString::to_string).collect();
            parse_reserved("r", &ips)
        };
        let (ranges, error) = parse(&["10.0.0.1", "10.0.0.9-10.0.0.1"]);
        let error = error.unwrap();
        assert_eq!(ranges.len(), 1);
        assert_eq!(
            error.to_string(),
            "SpiderReservedIP r is invalid: spec.ips[1]: IP range \"10.0.0.9-10.0.0.1\" is reversed: the first \
             address is above the last: correct or delete it"
        );
        let concerns = |text| Family::ALL.map(|family| parse(&[text]).1.unwrap().concerns(family));
        assert_eq!(concerns("10.0.0.9-10.0.0.1"), [true, false]);
        assert_eq!(concerns("fd00::9-fd00::1"), [false, true]);
        assert_eq!(concerns("10.0.0.1-fd00::1"), [true, true]);
        assert_eq!(concerns("x"), [true, true]);
        assert_eq!(parse(&["10.0.0.1"]).1, None);
    }
}
