//! Configurations of the CNI plugins. At DEL whatever is there is taken: a pod must end.

use spiderpool_cni::env::Command;
use spiderpool_cni::{coordinator, ifacer, ipam};

pub(crate) fn check(bytes: &[u8]) {
    for command in [Command::Add, Command::Check, Command::Status, Command::Gc] {
        if let Ok(config) = ipam::config::NetConf::parse(bytes, command) {
            assert!(!config.name.is_empty());
            drop(config.requested_ips());
        }
        drop(coordinator::config::NetConf::parse(bytes, command));
        drop(ifacer::config::NetConf::parse(bytes, command));
    }
    assert!(ipam::config::NetConf::parse(bytes, Command::Del).is_ok());
    assert!(coordinator::config::NetConf::parse(bytes, Command::Del).is_ok());
    assert!(ifacer::config::NetConf::parse(bytes, Command::Del).is_ok());
}
