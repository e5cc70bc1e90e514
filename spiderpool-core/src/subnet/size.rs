//! How many addresses the pool of an application has: one for each of its pods, and some more, or a number that is given.

use super::request::PoolSize;

/// How many pods a workload has at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pods {
    /// `spec.replicas` of a Deployment, ReplicaSet or StatefulSet, absent as 0: the API server fills it in.
    Replicas(Option<i32>),
    /// `status.desiredNumberScheduled` of a DaemonSet.
    Scheduled(i32),
    /// `spec.completions` and `spec.parallelism` of a Job, or of a CronJob's template.
    Job {
        /// All pods that are to succeed.
        completions: Option<i32>,
        /// Those that run at a time.
        parallelism: Option<i32>,
    },
}

impl Pods {
    /// The number. A Job that says nothing, or 0, has one.
    pub fn count(self) -> u32 {
        let number = |number: i32| u32::try_from(number).unwrap_or_default();
        match self {
            Self::Replicas(replicas) => number(replicas.unwrap_or_default()),
            Self::Scheduled(scheduled) => number(scheduled),
            Self::Job { completions, parallelism } => number(completions.or(parallelism).unwrap_or(1)).max(1),
        }
    }
}

impl PoolSize {
    /// How many addresses that are for so many pods.
    pub fn addresses(self, pods: u32) -> u32 {
        match self {
            Self::Fixed(addresses) => addresses,
            Self::Flexible(more) => pods.saturating_add(more),
        }
    }

    /// As the pool's annotation has it, `N` or `+N`.
    pub fn text(self) -> String {
        match self {
            Self::Fixed(addresses) => addresses.to_string(),
            Self::Flexible(more) => format!("+{more}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_are_counted_by_kind() {
        let job = |completions, parallelism| Pods::Job { completions, parallelism }.count();
        assert_eq!([Pods::Replicas(Some(3)).count(), Pods::Replicas(None).count()], [3, 0]);
        assert_eq!([Pods::Scheduled(2).count(), Pods::Scheduled(-1).count()], [2, 0]);
        assert_eq!([job(Some(5), Some(2)), job(Some(0), Some(2)), job(None, Some(2))], [5, 1, 2]);
        assert_eq!([job(None, Some(0)), job(None, None)], [1, 1]);
    }

    #[test]
    fn a_size_is_given_or_follows_the_pods() {
        assert_eq!((PoolSize::Fixed(4).addresses(9), PoolSize::Fixed(4).text()), (4, "4".to_owned()));
        assert_eq!((PoolSize::Flexible(1).addresses(9), PoolSize::Flexible(1).text()), (10, "+1".to_owned()));
        assert_eq!(PoolSize::Flexible(2).addresses(u32::MAX), u32::MAX);
    }
}
