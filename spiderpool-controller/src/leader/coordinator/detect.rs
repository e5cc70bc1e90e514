//! `podCIDRType: auto`: whose CIDRs are those of the pods.
//!
//! What the API shows comes first, because it is the same on every node: IPPools of Calico, the ConfigMap of Cilium. Where
//! it leaves a choice, because an earlier network has left its objects or both are at work, agents that run and the CNI
//! configuration of the controller's node decide. Without a trace of either network, the cluster's own CIDRs are used.
//!
//! Nothing is decided while Calico's pools or Cilium's ConfigMap cannot be read: they may be there.

use super::problem::Note;
use super::sources::cni_config::{CniConfig, Network};
use super::sources::{Agents, Sources};

/// A source of pod CIDRs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    Calico,
    Cilium,
    Cluster,
    /// A cloud's network: the cluster may know no CIDR, and that is no fault.
    Cloud,
}

/// What was chosen, and what has to be said of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Detected {
    /// Two while a cluster moves from one network to the other.
    pub(super) origins: Vec<Origin>,
    /// What made the choice; absent where there was only one.
    pub(super) note: Option<Note>,
}

impl Detected {
    fn plain(origin: Origin) -> Self {
        Self { origins: vec![origin], note: None }
    }

    fn chosen(origins: &[Origin], found: impl Into<String>, because: impl Into<String>) -> Self {
        let note = Note::Detected { found: found.into(), because: because.into() };
        Self { origins: origins.to_vec(), note: Some(note) }
    }
}

/// Finds out where pod CIDRs come from.
pub(super) fn detect(sources: &Sources) -> Detected {
    let has_pools = sources.calico.found().is_some_and(|pools| !pools.nets.is_empty());
    let cilium = sources.cilium.found();
    let chained = cilium.and_then(|config| config.chained.as_deref());
    match (has_pools, cilium.is_some()) {
        (true, true) => match chained {
            Some(mode) => Detected::chosen(
                &[Origin::Calico],
                "Calico and Cilium",
                format!(
                    "Calico is used: Cilium's cni-chaining-mode is {mode}, so Calico gives the addresses"
                ),
            ),
            None => of_two(sources.agents.found().copied(), sources.cni.as_ref()),
        },
        (true, false) => {
            of_one(Origin::Calico, may_run(sources, |agents| agents.calico), "IPPools of Calico", sources)
        }
        (false, true) => match chained {
            Some(mode) => Detected::chosen(
                &[without_traces(sources)],
                "Cilium",
                format!(
                    "it is not used: its cni-chaining-mode is {mode}, so another plugin gives the addresses"
                ),
            ),
            None => of_one(
                Origin::Cilium,
                may_run(sources, |agents| agents.cilium),
                "the ConfigMap of Cilium",
                sources,
            ),
        },
        (false, false) => Detected::plain(without_traces(sources)),
    }
}

/// Agents that could not be looked for may run.
fn may_run(sources: &Sources, of: impl Fn(&Agents) -> bool) -> bool {
    sources.agents.failure().is_some() || sources.agents.found().is_some_and(of)
}

/// Both have objects. With both agents a cluster is on its way from one to the other, and has pods of both.
fn of_two(agents: Option<Agents>, cni: Option<&CniConfig>) -> Detected {
    let found = "Calico and Cilium";
    let by_agent = |name: &str| format!("{name} is used: the agents of the other one do not run");
    match (agents, cni) {
        (Some(Agents { calico: true, cilium: false }), _) => {
            Detected::chosen(&[Origin::Calico], found, by_agent("Calico"))
        }
        (Some(Agents { calico: false, cilium: true }), _) => {
            Detected::chosen(&[Origin::Cilium], found, by_agent("Cilium"))
        }
        (Some(Agents { calico: false, .. }), Some(cni)) if cni.network == Network::Calico => {
            Detected::chosen(
                &[Origin::Calico],
                found,
                format!("Calico is used: a node has {}", cni.description),
            )
        }
        (Some(Agents { calico: false, .. }), Some(cni)) if cni.network == Network::Cilium => {
            Detected::chosen(
                &[Origin::Cilium],
                found,
                format!("Cilium is used: a node has {}", cni.description),
            )
        }
        _ => Detected::chosen(
            &[Origin::Calico, Origin::Cilium],
            found,
            "both are used: nothing says that one of them has no pods; set spec.podCIDRType to the one that has",
        ),
    }
}

/// One has objects: unless it has no agent and the node is another network's.
fn of_one(origin: Origin, has_agent: bool, found: &str, sources: &Sources) -> Detected {
    let own = if origin == Origin::Calico { Network::Calico } else { Network::Cilium };
    match &sources.cni {
        Some(cni) if !has_agent && cni.network != own => Detected::chosen(
            &[without_traces(sources)],
            found,
            format!("they are not used: none of its agents runs, and a node has {}", cni.description),
        ),
        _ => Detected::plain(origin),
    }
}

/// A network that has no objects (yet) is known by its agents or by the node's configuration.
fn without_traces(sources: &Sources) -> Origin {
    let by_config = |cni: &CniConfig| match cni.network {
        // As Canal does: policies by Calico, addresses by the nodes' CIDRs.
        Network::Calico | Network::Cilium if cni.is_host_local => Origin::Cluster,
        Network::Calico => Origin::Calico,
        Network::Cilium => Origin::Cilium,
        Network::Cloud => Origin::Cloud,
        Network::Other => Origin::Cluster,
    };
    let is_chained = sources.cilium.found().is_some_and(|config| config.chained.is_some());
    let agents = sources.agents.found().copied().unwrap_or_default();
    match (&sources.cni, agents) {
        (Some(cni), _) => match by_config(cni) {
            Origin::Cilium if is_chained => Origin::Cluster,
            origin => origin,
        },
        (None, Agents { cilium: true, .. }) if !is_chained => Origin::Cilium,
        (None, Agents { calico: true, .. }) if sources.calico.found().is_some() => Origin::Calico,
        (None, _) => Origin::Cluster,
    }
}

#[cfg(test)]
mod tests {
    use super::super::outcome::Read;
    use super::super::sources::{cilium, cni_config};
    use super::*;

    /// What is there, a word each: calico, cilium, chained (objects), calico-agent, cilium-agent, calico-conf, ... (the node).
    fn sources(words: &str) -> Sources {
        let has = |word: &str| words.split(' ').any(|one| one == word);
        let pools = if has("calico") { vec!["10.1.0.0/16".parse().unwrap()] } else { vec![] };
        let mode = if has("chained") { "generic-veth" } else { "none" };
        let data = [("cni-chaining-mode".to_owned(), mode.to_owned())].into();
        let config = || Read::Found(cilium::parse("ConfigMap a/b", &data));
        let conf = |plugin: &str, ipam: &str| {
            let content = format!(
                r#"{{"name": "n", "plugins": [{{"type": "{plugin}", "ipam": {{"type": "{ipam}"}}}}]}}"#
            );
            Some(cni_config::parse("10-a.conflist", Some(&content)))
        };
        let confs = [
            ("calico-conf", "calico", "calico-ipam"),
            ("canal-conf", "calico", "host-local"),
            ("cilium-conf", "cilium-cni", ""),
            ("cloud-conf", "aws-cni", ""),
            ("bridge-conf", "bridge", "host-local"),
        ];
        let cni = confs.iter().find(|(word, ..)| has(word));
        Sources {
            calico: Read::Found(pools.into()),
            cilium: if has("cilium") || has("chained") { config() } else { Read::Absent },
            agents: if has("agents-unknown") {
                Read::Failed("forbidden".to_owned())
            } else {
                Read::Found(Agents { calico: has("calico-agent"), cilium: has("cilium-agent") })
            },
            cni: cni.and_then(|(_, plugin, ipam)| conf(plugin, ipam)),
            ..Sources::default()
        }
    }

    #[test]
    fn the_network_that_gives_addresses_is_found() {
        use Origin::{Calico, Cilium, Cloud, Cluster};
        for (words, origins, part) in [
            ("calico", &[Calico][..], None),
            ("calico calico-agent calico-conf", &[Calico], None),
            // Files of an earlier network may come first in a node's directory.
            ("calico calico-agent bridge-conf", &[Calico], None),
            ("calico bridge-conf", &[Cluster], Some("plugin bridge")),
            ("cilium", &[Cilium], None),
            ("cilium cilium-agent cilium-conf", &[Cilium], None),
            ("cilium canal-conf", &[Cluster], Some("plugin calico")),
            ("cilium calico calico-agent cilium-agent chained", &[Calico], Some("generic-veth")),
            ("chained cilium-agent", &[Cluster], Some("another plugin")),
            ("chained cilium-agent cloud-conf", &[Cloud], Some("another plugin")),
            (
                "calico cilium cilium-agent calico-conf",
                &[Cilium],
                Some("Cilium is used: the agents of the other"),
            ),
            ("calico cilium calico-agent", &[Calico], Some("Calico is used")),
            ("calico cilium calico-conf", &[Calico], Some("plugin calico")),
            ("calico cilium cilium-conf", &[Cilium], Some("plugin cilium-cni")),
            ("calico cilium calico-agent cilium-agent cilium-conf", &[Calico, Cilium], Some("both are used")),
            ("calico cilium", &[Calico, Cilium], Some("set spec.podCIDRType")),
            // Agents that may not be seen are no agents that are not there.
            ("calico agents-unknown bridge-conf", &[Calico], None),
            ("calico cilium agents-unknown calico-conf", &[Calico, Cilium], Some("both are used")),
            ("", &[Cluster], None),
            ("bridge-conf", &[Cluster], None),
            ("canal-conf calico-agent", &[Cluster], None),
            ("cloud-conf", &[Cloud], None),
            // Its pools are not there yet.
            ("calico-conf", &[Calico], None),
            ("calico-agent", &[Calico], None),
            ("cilium-conf", &[Cilium], None),
        ] {
            let Detected { origins: chosen, note } = detect(&sources(words));
            assert_eq!(chosen, origins, "{words}");
            let note = note.map(|note| note.to_string());
            assert_eq!(note.is_some(), part.is_some(), "{words}: {note:?}");
            assert!(part.is_none_or(|part| note.as_ref().unwrap().contains(part)), "{words}: {note:?}");
        }
    }
}
