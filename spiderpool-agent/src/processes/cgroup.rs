//! The pod of a process, by the names that kubelets give the cgroups of pods.

use spiderpool_core::names::PodUid;

/// By the contents of `/proc/PID/cgroup` (cgroups(7)), of whichever hierarchy names a pod. Where cgroups of pods are nested,
/// it is the outer one, whose kubelet is this node's.
pub(super) fn pod_uid(cgroups: &str) -> Option<PodUid> {
    let paths = cgroups.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    paths.flat_map(|path| path.split('/')).find_map(pod_of_name)
}

/// `pod<UID>` of the driver cgroupfs, or `kubepods-<QoS>-pod<UID>.slice` of the driver systemd, where a `-` would be another
/// level (`NewCgroupName`, `escapeSystemdCgroupName` in pkg/kubelet/cm of Kubernetes).
fn pod_of_name(name: &str) -> Option<PodUid> {
    // `SLICE:cri-containerd:ID` if kubelet and containerd differ in their drivers.
    let name = name.split(':').next()?;
    let Some(slice) = name.strip_suffix(".slice") else { return name.strip_prefix("pod")?.parse().ok() };
    let (parent, uid) = slice.rsplit_once("-pod")?;
    let is_of_pods = parent.split('-').any(|part| part == "kubepods");
    if is_of_pods { uid.replace('_', "-").parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "8d1c4e4c-9b5e-4a0b-8f0e-3a5f0c1d2e3f";
    const ESCAPED: &str = "8d1c4e4c_9b5e_4a0b_8f0e_3a5f0c1d2e3f";
    const ID: &str = "4f3c0e5d8a7b6c5d4e3f2a1b0c9d8e7f6a5b4c3d2e1f0a9b8c7d6e5f4a3b2c1d";

    #[track_caller]
    fn check(uid: &str, cgroups: &str) {
        let found = pod_uid(cgroups);
        assert_eq!(found.as_ref().map(PodUid::as_str), Some(uid), "{cgroups}");
    }

    #[test]
    fn cgroups_of_the_driver_cgroupfs_name_their_pod() {
        for qos in ["/besteffort", "/burstable", ""] {
            check(UID, &format!("0::/kubepods{qos}/pod{UID}/{ID}\n"));
            check(UID, &format!("0::/kubepods{qos}/pod{UID}/crio-{ID}\n"));
            check(UID, &format!("0::/custom/root/kubepods{qos}/pod{UID}/{ID}\n"));
            check(
                UID,
                &format!(
                    "12:pids:/kubepods{qos}/pod{UID}/{ID}\n4:cpu,cpuacct:/kubepods{qos}/pod{UID}/{ID}\n\
                     1:name=systemd:/kubepods{qos}/pod{UID}/{ID}\n0::/\n"
                ),
            );
        }
        // Not every hierarchy has to have the pod's cgroup.
        check(UID, &format!("9:name=systemd:/\n8:memory:/kubepods/pod{UID}/{ID}\n0::/\n"));
    }

    #[test]
    fn cgroups_of_the_driver_systemd_name_their_pod() {
        for (slices, prefix) in [
            ("/kubepods.slice/kubepods-besteffort.slice", "kubepods-besteffort"),
            ("/kubepods.slice/kubepods-burstable.slice", "kubepods-burstable"),
            ("/kubepods.slice", "kubepods"),
            // kind, and others with a cgroup root.
            (
                "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice",
                "kubelet-kubepods-besteffort",
            ),
        ] {
            for scope in ["cri-containerd", "crio", "crio-conmon", "docker"] {
                check(UID, &format!("0::{slices}/{prefix}-pod{ESCAPED}.slice/{scope}-{ID}.scope\n"));
            }
            check(
                UID,
                &format!(
                    "11:memory:{slices}/{prefix}-pod{ESCAPED}.slice/cri-containerd-{ID}.scope\n0::/system.slice\n"
                ),
            );
            // Below the container, in cgroups of its own.
            check(
                UID,
                &format!("0::{slices}/{prefix}-pod{ESCAPED}.slice/crio-{ID}.scope/container/init.scope\n"),
            );
        }
    }

    /// As the agent's container sees them in a cgroup namespace of its own.
    #[test]
    fn cgroups_outside_of_the_cgroup_namespace_name_their_pod() {
        check(
            UID,
            &format!(
                "0::/../../../kubepods-besteffort.slice/kubepods-besteffort-pod{ESCAPED}.slice/crio-{ID}.scope\n"
            ),
        );
        check(UID, &format!("0::/../../kubepods-burstable-pod{ESCAPED}.slice/cri-containerd-{ID}.scope\n"));
        check(UID, &format!("0::/../../../besteffort/pod{UID}/{ID}\n"));
        check(UID, &format!("0::/../../pod{UID}/{ID}\n"));
    }

    #[test]
    fn a_static_pod_is_named_by_the_hash_of_its_manifest() {
        let hash = "a6b3f0d1c2e4958677889900aabbccdd";
        check(hash, &format!("0::/kubepods.slice/kubepods-pod{hash}.slice/cri-containerd-{ID}.scope\n"));
        check(hash, &format!("0::/kubepods/burstable/pod{hash}/{ID}\n"));
    }

    #[test]
    fn a_runtime_whose_driver_is_not_the_kubelets_names_the_slice_all_the_same() {
        let slice = format!("kubepods-burstable-pod{ESCAPED}.slice:cri-containerd:{ID}");
        check(UID, &format!("0::/system.slice/containerd.service/{slice}\n"));
        check(UID, &format!("1:name=systemd:/system.slice/containerd.service/{slice}\n"));
    }

    #[test]
    fn the_outer_one_of_nested_pods_counts() {
        let inner = "11111111-2222-3333-4444-555555555555";
        check(UID, &format!("0::/kubepods/pod{UID}/{ID}/kubepods/besteffort/pod{inner}/{ID}\n"));
    }

    #[test]
    fn other_cgroups_name_no_pod() {
        for cgroups in [
            "",
            "0::/\n",
            "garbage",
            "0::/init.scope",
            "0::/kubepods.slice\n",
            "0::/kubepods.slice/kubepods-besteffort.slice\n",
            "0::/kubepods/besteffort/pod/x\n",
            "0::/system.slice/containerd.service\n",
            "0::/user.slice/user-0.slice/session-1.scope\n",
            "0::/machine.slice/libpod-4f3c0e5d.scope/container\n",
            "0::/machine.slice/machine-pod8d1c4e4c.slice/x\n",
            "0::/kubepods/pod8d1c4e4c-9b5e-4a0b-8f0e-3a5f0c1d2e3f (deleted)\n",
        ] {
            assert_eq!(pod_uid(cgroups), None, "{cgroups}");
        }
    }
}
