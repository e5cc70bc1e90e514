//! Whether another pod follows one that has ended, for which its addresses are kept: by what makes such pods.

use super::holding::Owner;

/// Whether another pod that is to have a pod's addresses will come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Successor {
    /// None that anybody knows of.
    None,
    /// The pod's StatefulSet or virtual machine makes one.
    Expected,
}

/// Which workloads' pods leave their addresses to the next one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeptWorkloads {
    /// Those of StatefulSets: `enableStatefulSet`.
    pub stateful_sets: bool,
    /// Those of KubeVirt's virtual machines: `enableKubevirtStaticIP`.
    pub virtual_machines: bool,
}

/// What may make another pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SuccessorSource<'a> {
    /// The StatefulSet of this name.
    StatefulSet(&'a str),
    /// The VirtualMachineInstance of this name, or the VirtualMachine that makes one.
    VirtualMachine(&'a str),
}

impl Owner {
    /// What may make another pod that is to have this one's addresses, in its namespace.
    pub fn successor_source(&self) -> Option<SuccessorSource<'_>> {
        match &self.virtual_machine {
            Some(machine) => Some(SuccessorSource::VirtualMachine(machine)),
            None => self.stateful_set().map(SuccessorSource::StatefulSet),
        }
    }
}

impl KeptWorkloads {
    /// The same, where such workloads' pods leave their addresses to the next one.
    pub fn source(self, owner: &Owner) -> Option<SuccessorSource<'_>> {
        owner.successor_source().filter(|source| match source {
            SuccessorSource::StatefulSet(_) => self.stateful_sets,
            SuccessorSource::VirtualMachine(_) => self.virtual_machines,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::holding::tests::owner;
    use super::*;
    use crate::names::{PodIdentity, PodName};

    #[test]
    fn addresses_are_kept_where_it_is_configured_and_for_whom_the_agent_has_found() {
        let set = owner("u", "StatefulSet");
        let pod = PodIdentity { name: PodName::new("ns", "web-0").unwrap(), ..set.pod.clone() };
        let set = Owner { pod, ..set };
        let forged = owner("u", "VirtualMachineInstance");
        let machine = Owner { virtual_machine: Some("db".into()), ..forged.clone() };
        let kept = |stateful_sets, virtual_machines| KeptWorkloads { stateful_sets, virtual_machines };
        assert_eq!(kept(true, false).source(&set), Some(SuccessorSource::StatefulSet("web")));
        assert_eq!(kept(false, true).source(&machine), Some(SuccessorSource::VirtualMachine("db")));
        assert_eq!((kept(false, true).source(&set), kept(true, false).source(&machine)), (None, None));
        assert_eq!(kept(true, true).source(&forged), None, "nobody has asked the API server for it");
    }
}
