//! The configuration as JSON text: keys, their order, and what is left out are upstream's.

mod coordinator;
mod plugin;
#[cfg(test)]
mod tests;

use serde::Serialize;
use serde_json::Value;

use super::block::{CniType, VlanMode, VlanNicConfig};
use super::{MultusFields, chain};
use coordinator::CoordinatorPlugin;
use plugin::{
    IbSriovPlugin, IfacerPlugin, Ipam, IpoibPlugin, IpvlanPlugin, MacvlanPlugin, OvsPlugin, RdmaPlugin,
    SriovPlugin, TuningPlugin, VlanPlugin, main_interface,
};

/// A list of plugin configurations (CNI specification 1.1.0, section 1).
#[derive(Debug, Serialize)]
struct ConfigList<'a> {
    #[serde(rename = "cniVersion")]
    cni_version: &'a str,
    name: &'a str,
    plugins: Vec<Plugin<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Plugin<'a> {
    Ifacer(IfacerPlugin<'a>),
    Macvlan(MacvlanPlugin<'a>),
    Ipvlan(IpvlanPlugin<'a>),
    Vlan(VlanPlugin<'a>),
    Sriov(SriovPlugin<'a>),
    IbSriov(IbSriovPlugin<'a>),
    Ipoib(IpoibPlugin<'a>),
    Ovs(OvsPlugin<'a>),
    Rdma(RdmaPlugin),
    Chained(Value),
    Coordinator(Box<CoordinatorPlugin<'a>>),
    Tuning(TuningPlugin),
}

/// `spec.config` of a network that has no faults. `None`: Multus is to look for a file of the network's name.
pub(super) fn render(fields: &MultusFields<'_>) -> Result<Option<String>, serde_json::Error> {
    if fields.cni_type == CniType::Custom {
        return Ok(fields.custom.filter(|text| !text.trim().is_empty()).map(ToOwned::to_owned));
    }
    let list = ConfigList {
        cni_version: fields.cni_version(),
        name: fields.config_name(),
        plugins: plugins(fields),
    };
    serde_json::to_string(&list).map(Some)
}

fn plugins<'a>(fields: &MultusFields<'a>) -> Vec<Plugin<'a>> {
    let mut plugins = Vec::new();
    plugins.extend(ifacer(fields).map(Plugin::Ifacer));
    plugins.extend(main_plugin(fields));
    let sriov = fields.sriov.filter(|_| fields.cni_type == CniType::Sriov);
    if sriov.is_some_and(|sriov| sriov.rdma_isolation) {
        plugins.push(Plugin::Rdma(RdmaPlugin::default()));
    }
    plugins
        .extend(fields.chain.iter().filter_map(|text| chain::parse_plugin(text).ok()).map(Plugin::Chained));
    if fields.enable_coordinator {
        plugins.push(Plugin::Coordinator(Box::new(CoordinatorPlugin::new(fields.coordinator))));
    }
    // It comes after the coordinator, which moves routes of the MTU that the driver has.
    let tuning = sriov.filter(|sriov| sriov.mtu > 0).map(|sriov| TuningPlugin::new(sriov.mtu));
    plugins.extend(tuning.map(Plugin::Tuning));
    plugins
}

/// Makes the VLAN or bond interface on the node.
fn ifacer<'a>(fields: &MultusFields<'a>) -> Option<IfacerPlugin<'a>> {
    let (master, vlan_id, bond) = match fields.cni_type {
        CniType::Macvlan => fields.macvlan.map(nic)?,
        CniType::Ipvlan => fields.ipvlan.map(nic)?,
        CniType::Vlan => fields.vlan.map(|vlan| (&vlan.master, 0, vlan.bond.as_ref()))?,
        _ => return None,
    };
    (master.len() > 1 || vlan_id != 0).then(|| IfacerPlugin::new(vlan_id, master, bond))
}

type Nic<'a> = (&'a Vec<String>, i32, Option<&'a super::Bond>);

fn nic(config: &VlanNicConfig) -> Nic<'_> {
    (&config.master, config.vlan_id.unwrap_or_default(), config.bond.as_ref())
}

fn main_plugin<'a>(fields: &MultusFields<'a>) -> Option<Plugin<'a>> {
    let ipam =
        (!fields.disable_ipam).then(|| Ipam::new(fields.pools().map(|(_, pools)| pools), fields.cni_type));
    let interface = |config: &'a VlanNicConfig| {
        let (master, vlan_id, bond) = nic(config);
        main_interface(master, bond, vlan_id)
    };
    Some(match fields.cni_type {
        CniType::Macvlan => {
            let config = fields.macvlan?;
            Plugin::Macvlan(MacvlanPlugin::new(interface(config), config.mtu, ipam))
        }
        CniType::Ipvlan => {
            let config = fields.ipvlan?;
            Plugin::Ipvlan(IpvlanPlugin::new(interface(config), config.mtu, ipam))
        }
        CniType::Vlan => {
            let config = fields.vlan?;
            let master = main_interface(&config.master, config.bond.as_ref(), 0);
            let id = (config.vlan_mode == VlanMode::Manual).then(|| config.vlan_id.unwrap_or_default());
            Plugin::Vlan(VlanPlugin::new(master, config.vlan_mode, id, config.mtu, ipam))
        }
        CniType::Sriov => Plugin::Sriov(SriovPlugin::new(fields.sriov?, ipam)),
        CniType::IbSriov => Plugin::IbSriov(IbSriovPlugin::new(fields.ibsriov?, ipam)),
        CniType::Ipoib => Plugin::Ipoib(IpoibPlugin::new(fields.ipoib?, ipam)),
        CniType::Ovs => Plugin::Ovs(OvsPlugin::new(fields.ovs?, ipam)),
        CniType::Custom => return None,
    })
}
