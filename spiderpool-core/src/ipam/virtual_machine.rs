//! KubeVirt's virtual machines: whose pods leave their addresses to the next one, and which pods of one are alive at a time.
//!
//! A VirtualMachineInstance runs in a pod, `virt-launcher-NAME-xxxxx`. A VirtualMachine makes one of its own name each time it
//! is started. While an instance moves to another node it has two pods, the second of which names the
//! VirtualMachineInstanceMigration.

use super::successor::Successor;

/// The API group.
pub const GROUP: &str = "kubevirt.io";
/// The kind of a machine that runs.
pub const INSTANCE: &str = "VirtualMachineInstance";
/// The kind of its definition, which is there also while it is stopped.
pub const MACHINE: &str = "VirtualMachine";

/// What a VirtualMachineInstance says of its pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InstanceState {
    /// It is being deleted: it makes no more pods.
    pub terminating: bool,
    /// A VirtualMachine controls it, which may make another one.
    pub of_machine: bool,
    /// A pod of it other than the one that is asked about may run with the same addresses.
    pub has_other_pods: bool,
}

/// What is known after looking at the instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SuccessorStep {
    /// It is settled.
    Known(Successor),
    /// The VirtualMachine of the name decides: ask [`of_machine`].
    AskMachine,
}

/// Whether another pod follows one of an instance; `None` if that does not exist any more. One that is being deleted keeps
/// its addresses until it is gone where another pod of it may use them.
pub fn of_instance(instance: Option<InstanceState>) -> SuccessorStep {
    match instance {
        Some(InstanceState { terminating: false, .. } | InstanceState { has_other_pods: true, .. }) => {
            SuccessorStep::Known(Successor::Expected)
        }
        Some(InstanceState { of_machine: false, .. }) => SuccessorStep::Known(Successor::None),
        Some(_) | None => SuccessorStep::AskMachine,
    }
}

/// The same where the VirtualMachine decides, whether it runs or is stopped: whether it is being deleted, `None` if it does
/// not exist.
pub fn of_machine(terminating: Option<bool>) -> Successor {
    match terminating {
        Some(false) => Successor::Expected,
        Some(true) | None => Successor::None,
    }
}

/// What a VirtualMachineInstanceMigration says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migration {
    /// Its UID.
    pub uid: String,
    /// `spec.vmiName`.
    pub instance: String,
    /// It has succeeded or failed, or is being deleted.
    pub is_over: bool,
}

impl Migration {
    /// Whether the instance is moving by it to a pod that names this migration's UID. A pod that claims so has the addresses of a
    /// pod that runs: its word alone is not enough.
    pub fn moves(&self, instance: &str, named_uid: Option<&String>) -> bool {
        !self.is_over && self.instance == instance && named_uid == Some(&self.uid)
    }
}

/// Where an instance runs, as its status says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstancePlace {
    /// Its UID, by which its pods name it.
    pub uid: String,
    /// The node that it runs on; of one that is moving, the node that it comes from.
    pub node: String,
}

impl InstancePlace {
    /// Whether it has moved to a pod on this node whose owner has this UID.
    pub fn has_moved_to(&self, owner_uid: &str, node: &str) -> bool {
        self.uid == owner_uid && !node.is_empty() && self.node == node
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_instance_decides_and_after_it_its_machine() {
        let state = |terminating, of_machine, has_other_pods| {
            of_instance(Some(InstanceState { terminating, of_machine, has_other_pods }))
        };
        let known = SuccessorStep::Known;
        for of_machine in [false, true] {
            assert_eq!(state(false, of_machine, false), known(Successor::Expected));
            assert_eq!(state(true, of_machine, true), known(Successor::Expected), "its target may run");
        }
        assert_eq!(state(true, false, false), known(Successor::None));
        assert_eq!(state(true, true, false), SuccessorStep::AskMachine);
        assert_eq!(of_instance(None), SuccessorStep::AskMachine, "a machine that is stopped has none");
        assert_eq!(of_machine(Some(false)), Successor::Expected);
        assert_eq!((of_machine(Some(true)), of_machine(None)), (Successor::None, Successor::None));
    }

    #[test]
    fn only_the_pod_of_a_migration_that_goes_on_is_its_target() {
        let migration = Migration { uid: "m".to_owned(), instance: "db".to_owned(), is_over: false };
        let (own, other) = ("m".to_owned(), "x".to_owned());
        assert!(migration.moves("db", Some(&own)));
        assert!(!migration.moves("web", Some(&own)));
        assert!(!migration.moves("db", Some(&other)) && !migration.moves("db", None));
        assert!(!Migration { is_over: true, ..migration }.moves("db", Some(&own)));
    }

    #[test]
    fn an_instance_has_moved_when_its_status_says_so() {
        let place = InstancePlace { uid: "i".to_owned(), node: "n2".to_owned() };
        assert!(place.has_moved_to("i", "n2"));
        assert!(!place.has_moved_to("i", "n1") && !place.has_moved_to("forged", "n2"));
        assert!(!InstancePlace { node: String::new(), ..place }.has_moved_to("i", ""));
    }
}
