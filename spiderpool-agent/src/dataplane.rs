//! The eBPF dataplane of this node: loads programs and maps, and reconciles them with the inventory of pods and the
//! destinations.

mod attach;
mod cidrs;
mod entries;
mod error;
mod loaded;
mod logs;
mod metrics;
mod profiles;
mod repair;
mod settings;

use spiderpool_dataplane::NicsOrigin;
use thiserror::Error;
use tracing::error;

use crate::fallback::{Fallback, ProgramsState};
use crate::pod_network::FoundNic;

pub use cidrs::plan_cidrs;
pub use entries::TooManyNics;
pub use error::DataplaneError;
pub(crate) use loaded::Loaded;
pub use metrics::DataplaneMetrics;
pub use settings::DataplaneSettings;

/// Programs and maps are not loaded.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("eBPF dataplane of this node is not loaded: {0}")]
pub struct NotLoaded(String);

/// Programs and maps, or why they are not loaded. Everything here blocks.
#[derive(Debug)]
pub(crate) struct EbpfDataplane {
    settings: DataplaneSettings,
    metrics: DataplaneMetrics,
    /// Told whether programs and maps are loaded.
    fallback: Fallback,
    loaded: Result<Loaded, NotLoaded>,
    /// Of the first attempt: the next one finds the map that took the place of another.
    nics_origin: Option<NicsOrigin>,
}

impl EbpfDataplane {
    /// Nothing is loaded yet.
    pub(crate) fn new(settings: DataplaneSettings, metrics: DataplaneMetrics, fallback: Fallback) -> Self {
        let loaded = Err(NotLoaded("not yet".to_owned()));
        Self { settings, metrics, fallback, loaded, nics_origin: None }
    }

    /// Where programs and maps are.
    pub(crate) const fn settings(&self) -> &DataplaneSettings {
        &self.settings
    }

    /// What is exported.
    pub(crate) const fn metrics(&self) -> &DataplaneMetrics {
        &self.metrics
    }

    /// Programs and maps.
    pub(crate) fn loaded(&mut self) -> Result<&mut Loaded, NotLoaded> {
        self.loaded.as_mut().map_err(|not_loaded| not_loaded.clone())
    }

    /// Loads programs and maps, to be handed to [`Self::finish`] when the NICs that were found in the maps are in the
    /// inventory; with them, where their map comes from.
    pub(crate) fn load(&mut self) -> Result<(Loaded, Vec<FoundNic>, NicsOrigin), DataplaneError> {
        let (loaded, found) = Loaded::load(&self.settings, self.metrics.clone())?;
        let origin = *self.nics_origin.get_or_insert(loaded.nics_origin());
        Ok((loaded, found, origin))
    }

    /// The attempt to load has ended; a failure is logged when it is not the one of the last attempt.
    pub(crate) fn finish(&mut self, mut outcome: Result<Loaded, LoadFailure>) {
        match &mut outcome {
            Ok(loaded) => {
                loaded.follow_logs();
                self.fallback.set_programs(ProgramsState::Loaded);
            }
            Err(failure) => {
                let reason = failure.reason();
                if self.loaded.as_ref().err().is_none_or(|last| last.0 != reason) {
                    error!(error = reason, "eBPF dataplane cannot be loaded, trying again");
                }
                self.fallback.set_programs(match failure {
                    LoadFailure::Programs(reason) => ProgramsState::Impossible(reason.clone()),
                    LoadFailure::Other(reason) => ProgramsState::Blocked(reason.clone()),
                });
            }
        }
        self.loaded = outcome.map_err(|failure| NotLoaded(failure.reason().to_owned()));
    }
}

/// Why an attempt to load has failed.
#[derive(Debug)]
pub(crate) enum LoadFailure {
    /// The kernel, its file systems or the agent's rights do not allow it.
    Programs(String),
    /// What the agent itself keeps is in the way.
    Other(String),
}

impl LoadFailure {
    fn reason(&self) -> &str {
        let (Self::Programs(reason) | Self::Other(reason)) = self;
        reason
    }
}
