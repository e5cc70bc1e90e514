//! What the map `cluster_cidrs` holds of each profile.

use std::collections::{BTreeMap, BTreeSet};

use crate::pod_network::ProfileKey;

/// A profile that has entries, or may have some.
#[derive(Debug, Clone, PartialEq, Eq)]
enum ProfileState {
    /// Its entries are those of another agent or of earlier destinations, or were written in part.
    Stale,
    /// Its entries are those of this key, for the present destinations.
    Written(ProfileKey),
}

/// The profiles by number. One that is not among them has no entries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Profiles(BTreeMap<u16, ProfileState>);

impl Profiles {
    /// The profiles that an earlier agent has left in the map.
    pub(super) fn found(profiles: BTreeSet<u16>) -> Self {
        Self(profiles.into_iter().map(|profile| (profile, ProfileState::Stale)).collect())
    }

    /// The destinations have changed: every profile must be written again.
    pub(super) fn set_stale(&mut self) {
        self.0.values_mut().for_each(|state| *state = ProfileState::Stale);
    }

    /// Whether the profile's entries are those of the key.
    pub(super) fn is_written(&self, profile: u16, key: &ProfileKey) -> bool {
        self.0.get(&profile).is_some_and(|state| *state == ProfileState::Written(key.clone()))
    }

    /// The profile's entries are being replaced, which may fail in the middle.
    pub(super) fn begin(&mut self, profile: u16) {
        self.0.insert(profile, ProfileState::Stale);
    }

    /// The profile's entries are replaced.
    pub(super) fn finish(&mut self, profile: u16, key: ProfileKey) {
        self.0.insert(profile, ProfileState::Written(key));
    }

    /// The profiles that have entries and are not among those in use.
    pub(super) fn unused(&self, in_use: &BTreeSet<u16>) -> Vec<u16> {
        self.0.keys().copied().filter(|profile| !in_use.contains(profile)).collect()
    }

    /// The profile's entries are removed.
    pub(super) fn remove(&mut self, profile: u16) {
        self.0.remove(&profile);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(route: &str) -> ProfileKey {
        ProfileKey { routes: [route.parse().unwrap()].into(), ..ProfileKey::default() }
    }

    #[test]
    fn a_profile_is_written_until_its_key_or_the_destinations_change() {
        let mut profiles = Profiles::default();
        profiles.begin(1);
        assert!(!profiles.is_written(1, &key("192.0.2.0/24")), "the writing has not ended");
        profiles.finish(1, key("192.0.2.0/24"));
        assert!(profiles.is_written(1, &key("192.0.2.0/24")));
        assert!(!profiles.is_written(1, &key("198.51.100.0/24")));
        profiles.set_stale();
        assert!(!profiles.is_written(1, &key("192.0.2.0/24")));
    }

    #[test]
    fn an_unused_profile_is_removed_also_if_found_or_written_in_part() {
        let mut profiles = Profiles::found([7, 8].into());
        profiles.begin(1);
        profiles.finish(2, key("192.0.2.0/24"));
        assert_eq!(profiles.unused(&[8].into()), [1, 2, 7]);
        profiles.remove(7);
        assert_eq!(profiles.unused(&[8].into()), [1, 2]);
    }
}
