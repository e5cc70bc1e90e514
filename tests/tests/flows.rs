//! The flow matrix in the lab: every flow, default route on either NIC, IPv4 and IPv6, hints and none.
#![forbid(unsafe_code)]

use spiderpool_tests::lab::LabStage;
use spiderpool_tests::privilege;
use spiderpool_tests::stage::{RouteHints, Stage as _, run_matrix};

#[test]
fn every_flow_works_in_every_mode() {
    if !privilege::root_or_skip("every_flow_works_in_every_mode") {
        return;
    }
    let mut stage = Box::new(LabStage::start(|_| ()).unwrap());
    let failed = run_matrix(&mut *stage, &RouteHints::ALL).unwrap();
    stage.finish().unwrap();
    assert!(failed.is_empty(), "{} flows failed:\n{}", failed.len(), failed.join("\n"));
}
