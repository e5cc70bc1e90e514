//! The SpiderIPPools of the underlays.

use serde_json::{Value, json};

use crate::topology::addresses;

/// Two of each family for each underlay: with its gateway and without.
pub(super) fn all(underlays: u8) -> Vec<Value> {
    let of = |number: u8| {
        let gateway = addresses::further_underlay(number, 0, 1);
        addresses::underlay_subnets(number).into_iter().zip(["v4", "v6"]).flat_map(
            move |(subnet, version)| {
                [10, 20].map(|block| {
                    let own = |host| addresses::further_underlay(number, block, host);
                    let (first, last) = (own(1), own(250));
                    let (range, gateway) = match version {
                        "v4" => (format!("{}-{}", first.v4, last.v4), gateway.v4.to_string()),
                        _ => (format!("{}-{}", first.v6, last.v6), gateway.v6.to_string()),
                    };
                    let mut pool = json!({
                        "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderIPPool",
                        "metadata": {"name": pool_name(number, block == 10, version)},
                        "spec": {"subnet": subnet, "ips": [range]},
                    });
                    if block == 10 {
                        pool["spec"]["gateway"] = json!(gateway);
                    }
                    pool
                })
            },
        )
    };
    (1..=underlays).flat_map(of).collect()
}

/// A pool's name.
pub(super) fn pool_name(underlay: u8, has_gateway: bool, version: &str) -> String {
    format!("underlay{underlay}{}-{version}", if has_gateway { "" } else { "-no-gateway" })
}
