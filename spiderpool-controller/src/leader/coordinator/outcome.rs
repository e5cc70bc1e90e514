//! What came of reading a source: that it is not there is an answer, too.

/// What came of reading a source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Read<T> {
    /// There is none, or it was not asked for.
    #[default]
    Absent,
    /// What it says.
    Found(T),
    /// It is there and cannot be used.
    Failed(String),
}

impl<T> Read<T> {
    /// What it says, if it was read.
    pub(super) fn found(&self) -> Option<&T> {
        match self {
            Self::Found(value) => Some(value),
            Self::Absent | Self::Failed(_) => None,
        }
    }

    /// Why it cannot be used, if so.
    pub(super) fn failure(&self) -> Option<&str> {
        match self {
            Self::Failed(error) => Some(error),
            Self::Absent | Self::Found(_) => None,
        }
    }

    /// What it says, in another form.
    pub(super) fn map<U>(self, change: impl FnOnce(T) -> U) -> Read<U> {
        match self {
            Self::Absent => Read::Absent,
            Self::Found(value) => Read::Found(change(value)),
            Self::Failed(error) => Read::Failed(error),
        }
    }
}
