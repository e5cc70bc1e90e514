//! What is done every few seconds, a slice at a time: flows whose time is over are removed, counters added up.

use std::time::Instant;

use tracing::error;

use super::{Loaded, Sweep};
use crate::pod_network::Inventory;

impl Loaded {
    /// Begins a sweep, unless the last one still goes on.
    pub(crate) fn begin_sweep(&mut self) {
        if self.sweep.is_some() {
            return;
        }
        self.sweeps += 1;
        self.sweep = Some(Sweep::Flows);
        if let Err(error) = self.maps.begin_sweep() {
            error!(%error, "flows cannot be expired");
        }
    }

    /// Whether a sweep has begun and not ended.
    pub(crate) const fn is_sweeping(&self) -> bool {
        self.sweep.is_some()
    }

    /// Goes on with a sweep until then, or a little longer.
    pub(crate) fn sweep_until(&mut self, inventory: &Inventory, until: Instant) {
        match &mut self.sweep {
            None => {}
            Some(Sweep::Flows) => self.expire_until(inventory, until),
            Some(Sweep::Counters(ids)) => {
                for id in ids {
                    match self.maps.stats(id) {
                        Ok(stats) => self.deltas.add(&self.metrics, id, &stats),
                        Err(error) => error!(%error, nic_id = id, "counters cannot be read"),
                    }
                    if Instant::now() >= until {
                        return;
                    }
                }
                self.sweep = None;
                self.count_nics(inventory);
                match self.maps.tables() {
                    Ok(tables) => self.metrics.maps.set_tables(&tables),
                    Err(error) => error!(%error, "entries cannot be counted"),
                }
            }
        }
    }

    fn expire_until(&mut self, inventory: &Inventory, until: Instant) {
        match self.maps.sweep_until(until) {
            Ok(Some(found)) => {
                self.metrics.maps.set_flows(&found);
                self.end_keeping(inventory, &found.translating);
            }
            Ok(None) if self.maps.is_sweeping() => return,
            Ok(None) => {}
            Err(error) => error!(%error, "flows cannot be expired"),
        }
        let ids: Vec<u16> = inventory.ids().into_iter().collect();
        self.sweep = Some(Sweep::Counters(ids.into_iter()));
    }
}
