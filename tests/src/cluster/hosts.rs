//! Names and addresses of the machines, as their `/etc/hosts` has them.

use super::options;
use crate::dual::Dual;
use crate::topology::addresses;

pub(super) const FABRIC: &str = "fabric";
pub(super) const GATEWAY: &str = "gateway";
pub(super) const OUTSIDE: &str = "outside";
pub(super) const CLIENT: &str = "client";

/// Lines of /etc/hosts.
pub(super) fn file() -> String {
    let node = |index| {
        let Dual { v4, v6 } = addresses::node(index);
        format!("{v4} node{index}\n{v6} node{index}\n")
    };
    let nodes: String = (1..=options::MAX_NODES).map(node).collect();
    format!("{} {FABRIC}\n{nodes}", addresses::API_SERVER.v4)
}
