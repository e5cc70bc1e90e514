//! The flow matrix in the lab: every flow, default route on either NIC, IPv4 and IPv6, hints and none.
#![forbid(unsafe_code)]

use spiderpool_core::coordinator::Dataplane;
use spiderpool_tests::fixture::{Fixture as _, RouteHints, run_matrix};
use spiderpool_tests::lab::LabFixture;
use spiderpool_tests::privilege;

#[test]
fn every_flow_works_in_every_mode() {
    if !privilege::root_or_skip("every_flow_works_in_every_mode") {
        return;
    }
    let mut fixture = Box::new(LabFixture::start(|_| ()).unwrap());
    let failed = run_matrix(&mut *fixture, &RouteHints::ALL).unwrap();
    fixture.finish().unwrap();
    assert!(failed.is_empty(), "{} flows failed:\n{}", failed.len(), failed.join("\n"));
}

#[test]
fn the_flows_of_dataplane_policy() {
    if !privilege::root_or_skip("the_flows_of_dataplane_policy") {
        return;
    }
    let mut fixture = Box::new(LabFixture::start_with(Dataplane::Policy, |_| ()).unwrap());
    let failed = run_matrix(&mut *fixture, &[RouteHints::Auto]).unwrap();
    fixture.finish().unwrap();
    assert!(failed.is_empty(), "{} flows failed:\n{}", failed.len(), failed.join("\n"));
}
