//! Label selectors as Kubernetes defines them: `LabelSelector` of `k8s.io/apimachinery/pkg/apis/meta/v1`, with the
//! meaning of its `LabelSelectorAsSelector`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use thiserror::Error;

use crate::names::is_subdomain;

/// A selector as it is written.
#[derive(Debug, Clone, Default)]
pub struct SelectorFields<'a> {
    /// `matchLabels`.
    pub match_labels: Option<&'a BTreeMap<String, String>>,
    /// `matchExpressions`.
    pub match_expressions: Vec<ExpressionFields<'a>>,
}

/// An entry of `matchExpressions` as it is written.
#[derive(Debug, Clone, Copy)]
pub struct ExpressionFields<'a> {
    /// `key`.
    pub key: &'a str,
    /// `operator`.
    pub operator: &'a str,
    /// `values`.
    pub values: &'a [String],
}

/// Requirements on labels, of which all must hold. There is at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelSelector(Vec<Requirement>);

/// One requirement. Displayed as `kubectl -l` takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    key: String,
    condition: Condition,
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, condition } = self;
        let list =
            |values: &BTreeSet<String>| values.iter().map(String::as_str).collect::<Vec<_>>().join(",");
        match condition {
            Condition::In(values) if values.len() == 1 => write!(f, "{key}={}", list(values)),
            Condition::In(values) => write!(f, "{key} in ({})", list(values)),
            Condition::NotIn(values) => write!(f, "{key} notin ({})", list(values)),
            Condition::Exists => f.write_str(key),
            Condition::DoesNotExist => write!(f, "!{key}"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Condition {
    In(BTreeSet<String>),
    NotIn(BTreeSet<String>),
    Exists,
    DoesNotExist,
}

/// What is wrong with one field of a selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelectorFault {
    /// The field's path inside of the selector, `matchExpressions[0].operator`.
    pub path: String,
    /// What is wrong with it.
    pub problem: SelectorProblem,
}

/// What can be wrong with a field of a selector.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SelectorProblem {
    /// Not a label's key.
    #[error(
        "{0:?} is not a label key: [PREFIX/]NAME, the prefix a DNS-1123 subdomain, the name a label value"
    )]
    Key(String),
    /// Not a label's value.
    #[error(
        "{0:?} is not a label value: at most 63 letters, digits, '-', '_' and '.', starting and ending with a letter \
         or digit"
    )]
    Value(String),
    /// An operator that does not exist.
    #[error("{0:?} is not a selector operator: In, NotIn, Exists or DoesNotExist")]
    Operator(String),
    /// `In` and `NotIn` compare with values.
    #[error("must be specified when operator is 'In' or 'NotIn'")]
    ValuesRequired,
    /// `Exists` and `DoesNotExist` do not.
    #[error("may not be specified when operator is 'Exists' or 'DoesNotExist'")]
    ValuesForbidden,
}

impl LabelSelector {
    /// The selector; `None` for one without a requirement, which matches everything. All that is wrong with it
    /// otherwise.
    pub fn parse(fields: &SelectorFields<'_>) -> Result<Option<Self>, Vec<SelectorFault>> {
        let (mut requirements, mut faults) = (Vec::new(), Vec::new());
        for (key, value) in fields.match_labels.into_iter().flatten() {
            let path = format!("matchLabels[{key}]");
            let problem = check_key(key).and_then(|()| check_value(value));
            faults.extend(problem.err().map(|problem| SelectorFault { path, problem }));
            let condition = Condition::In(BTreeSet::from([value.clone()]));
            requirements.push(Requirement { key: key.clone(), condition });
        }
        for (index, expression) in fields.match_expressions.iter().enumerate() {
            match parse_expression(expression) {
                Ok(requirement) => requirements.push(requirement),
                Err(found) => faults.extend(found.into_iter().map(|fault| SelectorFault {
                    path: format!("matchExpressions[{index}].{}", fault.path),
                    ..fault
                })),
            }
        }
        if faults.is_empty() {
            Ok((!requirements.is_empty()).then_some(Self(requirements)))
        } else {
            Err(faults)
        }
    }

    /// Whether an object with these labels is selected.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.unmet(labels).is_none()
    }

    /// The first requirement that an object with these labels does not meet.
    pub fn unmet(&self, labels: &BTreeMap<String, String>) -> Option<&Requirement> {
        self.0.iter().find(|requirement| !requirement.is_met(labels))
    }
}

impl Requirement {
    fn is_met(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        match &self.condition {
            Condition::In(values) => value.is_some_and(|value| values.contains(value)),
            Condition::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            Condition::Exists => value.is_some(),
            Condition::DoesNotExist => value.is_none(),
        }
    }
}

fn parse_expression(expression: &ExpressionFields<'_>) -> Result<Requirement, Vec<SelectorFault>> {
    let ExpressionFields { key, operator, values } = *expression;
    let set = || values.iter().cloned().collect();
    let condition = match operator {
        "In" => Some(Condition::In(set())),
        "NotIn" => Some(Condition::NotIn(set())),
        "Exists" => Some(Condition::Exists),
        "DoesNotExist" => Some(Condition::DoesNotExist),
        _ => None,
    };
    let problem_with_values = match &condition {
        Some(Condition::In(_) | Condition::NotIn(_)) if values.is_empty() => {
            Some(SelectorProblem::ValuesRequired)
        }
        Some(Condition::Exists | Condition::DoesNotExist) if !values.is_empty() => {
            Some(SelectorProblem::ValuesForbidden)
        }
        _ => None,
    };
    let fault = |path: &str, problem| SelectorFault { path: path.to_owned(), problem };
    let mut faults: Vec<_> = check_key(key).err().map(|problem| fault("key", problem)).into_iter().collect();
    faults.extend(problem_with_values.map(|problem| fault("values", problem)));
    for (index, value) in values.iter().enumerate() {
        faults.extend(check_value(value).err().map(|problem| fault(&format!("values[{index}]"), problem)));
    }
    match condition {
        Some(condition) if faults.is_empty() => Ok(Requirement { key: key.to_owned(), condition }),
        Some(_) => Err(faults),
        None => {
            faults.push(fault("operator", SelectorProblem::Operator(operator.to_owned())));
            Err(faults)
        }
    }
}

/// `IsQualifiedName` of `k8s.io/apimachinery/pkg/util/validation`.
fn check_key(key: &str) -> Result<(), SelectorProblem> {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    let is_key = prefix.is_none_or(is_subdomain) && !name.is_empty() && is_label_value(name);
    if is_key { Ok(()) } else { Err(SelectorProblem::Key(key.to_owned())) }
}

fn check_value(value: &str) -> Result<(), SelectorProblem> {
    if is_label_value(value) { Ok(()) } else { Err(SelectorProblem::Value(value.to_owned())) }
}

/// `IsValidLabelValue`; the empty value is one.
/// Whether a text may be a label's value.
pub fn is_label_value(value: &str) -> bool {
    let edge = |byte: Option<&u8>| byte.is_none_or(u8::is_ascii_alphanumeric);
    let bytes = value.as_bytes();
    bytes.len() <= 63
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
}

#[cfg(test)]
mod tests;
