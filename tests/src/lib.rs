//! The test bench: what integration tests, the demo and the benchmarks are built from.
//!
//! Everything here is real: etcd and kube-apiserver as processes, nodes as namespaces, packets through the kernel.
//! What is started dies with the process that started it, also after `kill -9`.
#![forbid(unsafe_code)]

pub mod agent;
pub mod api_proxy;
pub mod both_ends;
pub mod bulk;
pub mod capture;
pub mod churn;
pub mod cluster;
pub mod cni;
pub mod connection;
pub mod control_plane;
pub mod counters;
pub mod cpu_time;
pub mod datagrams;
pub mod default_network;
pub mod document;
pub mod dual;
pub mod exchange;
pub mod fault_proxy;
pub mod fixture;
pub mod flow;
pub mod images;
pub mod inside;
pub mod kernel_state;
pub mod kernel_version;
pub mod kubectl;
pub mod kubevirt;
pub mod lab;
pub mod link_kinds;
pub mod live_flows;
pub mod long_form;
pub mod machine;
pub mod matrix;
pub mod namespaces;
pub mod netkit;
pub mod node_ports;
pub mod oci;
pub mod outage;
pub mod pod;
pub mod poll;
pub mod privilege;
pub mod probe;
pub mod process;
pub mod registration;
pub mod release;
pub mod sctp;
pub mod service;
pub mod standalone_agent;
pub mod standalone_controller;
pub mod state_dir;
pub mod teardown;
pub mod tools;
pub mod topology;
pub mod workload;
