//! The flow matrix on the demo's scenario: every flow, default route on either NIC, IPv4 and IPv6, hints and none.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use spiderpool_core::ip::Family;
use spiderpool_tests::counters;
use spiderpool_tests::flow::Flow;
use spiderpool_tests::lab::RouteHints;
use spiderpool_tests::matrix::DefaultRoute;
use spiderpool_tests::pod::Pod;
use spiderpool_tests::privilege;
use spiderpool_tests::scenario::Scenario;

#[test]
fn every_flow_works_in_every_mode() {
    if !privilege::root_or_skip("every_flow_works_in_every_mode") {
        return;
    }
    let mut scenario = Scenario::start(|_| ()).unwrap();
    let (mut failed, mut pods) = (Vec::new(), Vec::new());
    for hints in RouteHints::ALL {
        scenario.set_route_hints(hints).unwrap();
        for default_route in DefaultRoute::ALL {
            let name = format!("{}-{}", default_route.nic(), hints.name());
            let pod = scenario.add_pod(&name, default_route).unwrap();
            let parties = scenario.parties(&pod, default_route).unwrap();
            for family in Family::ALL {
                failed.extend(run(&scenario, &pod, &parties.flows(family)));
                if hints == RouteHints::Auto || default_route == DefaultRoute::Eth0 {
                    let flows = parties.flows_without_gateway(family);
                    failed.extend(scenario.without_gateway(&pod, || run(&scenario, &pod, &flows)).unwrap());
                }
            }
            pods.push(pod);
        }
    }
    scenario.finish(pods).unwrap();
    assert!(failed.is_empty(), "{} flows failed:\n{}", failed.len(), failed.join("\n"));
}

/// What failed: flow, mode, family, and the counters that moved.
fn run(scenario: &Scenario, pod: &Pod, flows: &[Flow]) -> Vec<String> {
    let ids = counters::nic_ids(pod).unwrap();
    let read = || counters::read(scenario.node(), &ids).unwrap();
    let mut failed = Vec::new();
    for flow in flows {
        let before = read();
        if let Err(error) = flow.run().result {
            let moved = counters::moved(&before, &read());
            failed.push(format!("{}: {flow}: {error:#}; counters that moved: {moved:?}", pod.name));
        }
    }
    failed
}
