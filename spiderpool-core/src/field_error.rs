//! What is wrong with a field of an object, in the words that Kubernetes itself uses
//! (k8s.io/apimachinery `pkg/util/validation/field/errors.go`), so that `kubectl` shows our findings as its own.

use std::fmt;

/// One finding: the field, by its name in YAML, what it holds, and what it may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// As `spec.macvlan.master[0]`.
    pub path: String,
    /// What kind of finding it is.
    pub problem: FieldProblem,
}

/// What is wrong with a field. Values are as a user wrote them; details are sentences without an end mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FieldProblem {
    /// It is missing, or empty where it must not be.
    Required {
        /// What belongs there.
        detail: String,
    },
    /// It holds what it cannot hold.
    Invalid {
        /// What it holds.
        value: String,
        /// Why that cannot be, and what can.
        detail: String,
    },
    /// It holds none of a few values.
    NotSupported {
        /// What it holds.
        value: String,
        /// What it may hold.
        supported: Vec<String>,
    },
    /// It must not be there, or not be changed, as things are.
    Forbidden {
        /// Why.
        detail: String,
    },
    /// Another element of the list holds the same.
    Duplicate {
        /// What both hold.
        value: String,
    },
}

impl FieldError {
    /// A field that is missing.
    pub fn required(path: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { path: path.into(), problem: FieldProblem::Required { detail: detail.into() } }
    }

    /// A value that cannot be.
    pub fn invalid(path: impl Into<String>, value: impl fmt::Display, detail: impl Into<String>) -> Self {
        let problem = FieldProblem::Invalid { value: value.to_string(), detail: detail.into() };
        Self { path: path.into(), problem }
    }

    /// A value that is none of those that can be.
    pub fn not_supported<T: fmt::Display>(
        path: impl Into<String>,
        value: impl fmt::Display,
        supported: impl IntoIterator<Item = T>,
    ) -> Self {
        let supported = supported.into_iter().map(|value| value.to_string()).collect();
        Self {
            path: path.into(),
            problem: FieldProblem::NotSupported { value: value.to_string(), supported },
        }
    }

    /// A field that must not be there, or not be changed.
    pub fn forbidden(path: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { path: path.into(), problem: FieldProblem::Forbidden { detail: detail.into() } }
    }

    /// An element that is in the list already.
    pub fn duplicate(path: impl Into<String>, value: impl fmt::Display) -> Self {
        Self { path: path.into(), problem: FieldProblem::Duplicate { value: value.to_string() } }
    }
}

impl FieldProblem {
    /// The reason of a `StatusCause` (Kubernetes API, `metav1.CauseType`).
    pub fn cause(&self) -> &'static str {
        match self {
            Self::Required { .. } => "FieldValueRequired",
            Self::Invalid { .. } => "FieldValueInvalid",
            Self::NotSupported { .. } => "FieldValueNotSupported",
            Self::Forbidden { .. } => "FieldValueForbidden",
            Self::Duplicate { .. } => "FieldValueDuplicate",
        }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.problem)
    }
}

impl fmt::Display for FieldProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Required { detail } => write!(f, "Required value: {detail}"),
            Self::Invalid { value, detail } => write!(f, "Invalid value: {value:?}: {detail}"),
            Self::NotSupported { value, supported } => {
                let supported: Vec<_> = supported.iter().map(|value| format!("{value:?}")).collect();
                write!(f, "Unsupported value: {value:?}: supported values: {}", supported.join(", "))
            }
            Self::Forbidden { detail } => write!(f, "Forbidden: {detail}"),
            Self::Duplicate { value } => write!(f, "Duplicate value: {value:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the API server writes its own findings.
    #[test]
    fn findings_read_as_those_of_kubernetes() {
        for (error, text) in [
            (FieldError::required("spec.a", "at least one"), "spec.a: Required value: at least one"),
            (
                FieldError::invalid("spec.a[0]", 5000, "must be at most 4094"),
                "spec.a[0]: Invalid value: \"5000\": must be at most 4094",
            ),
            (
                FieldError::not_supported("spec.a", "x", ["y", "z"]),
                "spec.a: Unsupported value: \"x\": supported values: \"y\", \"z\"",
            ),
            (FieldError::forbidden("spec.a", "is not changeable"), "spec.a: Forbidden: is not changeable"),
            (FieldError::duplicate("spec.a[1]", "x"), "spec.a[1]: Duplicate value: \"x\""),
        ] {
            assert_eq!(error.to_string(), text);
        }
    }
}
