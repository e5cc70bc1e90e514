//! Workloads, reduced while they are decoded to what says which pools of SpiderSubnets they want, and for how many pods.

use std::collections::BTreeMap;

use k8s_openapi::api::{apps::v1 as apps, batch::v1 as batch};
use kube::core::{ApiResource, Object, ObjectMeta};
use kube::{Api, Client};
use serde::Deserialize;
use spiderpool_core::ip::Family;
use spiderpool_core::ipam::IpamError;
use spiderpool_core::ipam::owner::OwnerRef;
use spiderpool_core::names::PoolName;
use spiderpool_core::subnet::size::Pods;
use spiderpool_core::subnet::{Application, SubnetRequest, parse_request};

/// The kinds of workloads for which pools are made as soon as they are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WorkloadKind {
    /// `apps/v1`.
    Deployment,
    /// `apps/v1`.
    ReplicaSet,
    /// `apps/v1`.
    StatefulSet,
    /// `apps/v1`.
    DaemonSet,
    /// `batch/v1`.
    Job,
    /// `batch/v1`.
    CronJob,
}

/// A workload as it is decoded.
pub type WorkloadObject = Object<WorkloadSpec, WorkloadStatus>;

/// What is read of the specs of all kinds; each has some of it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadSpec {
    replicas: Option<i32>,
    completions: Option<i32>,
    parallelism: Option<i32>,
    template: PodTemplate,
    job_template: JobTemplate,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct JobTemplate {
    spec: JobSpec,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct JobSpec {
    completions: Option<i32>,
    parallelism: Option<i32>,
    template: PodTemplate,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct PodTemplate {
    metadata: TemplateMeta,
    spec: TemplateSpec,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct TemplateMeta {
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct TemplateSpec {
    host_network: bool,
}

/// What is read of the status.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadStatus {
    desired_number_scheduled: i32,
}

/// An application that wants pools of SpiderSubnets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubnetApplication {
    /// Its identity.
    pub application: Application,
    /// `metadata.uid`.
    pub uid: String,
    /// What it wants, or why that cannot be told.
    pub request: Result<SubnetRequest, IpamError>,
    /// How many pods it has; `None` for one of a third party.
    pub pods: Option<u32>,
}

impl WorkloadKind {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Deployment, Self::ReplicaSet, Self::StatefulSet, Self::DaemonSet, Self::Job, Self::CronJob];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
            Self::ReplicaSet => "ReplicaSet",
            Self::StatefulSet => "StatefulSet",
            Self::DaemonSet => "DaemonSet",
            Self::Job => "Job",
            Self::CronJob => "CronJob",
        }
    }

    fn resource(self) -> ApiResource {
        match self {
            Self::Deployment => ApiResource::erase::<apps::Deployment>(&()),
            Self::ReplicaSet => ApiResource::erase::<apps::ReplicaSet>(&()),
            Self::StatefulSet => ApiResource::erase::<apps::StatefulSet>(&()),
            Self::DaemonSet => ApiResource::erase::<apps::DaemonSet>(&()),
            Self::Job => ApiResource::erase::<batch::Job>(&()),
            Self::CronJob => ApiResource::erase::<batch::CronJob>(&()),
        }
    }

    /// The kind of an application, if it is one of these.
    pub fn of(application: &Application) -> Option<Self> {
        let is_of = |kind: &Self| kind.as_str() == application.kind;
        Self::ALL.into_iter().find(is_of).filter(|_| application.is_watched())
    }

    /// Those of a namespace.
    pub fn namespaced(self, client: Client, namespace: &str) -> Api<WorkloadObject> {
        Api::namespaced_with(client, namespace, &self.resource())
    }

    /// Those of all namespaces.
    pub fn all(self, client: Client) -> Api<WorkloadObject> {
        Api::all_with(client, &self.resource())
    }

    /// What the workload wants; `None` if it wants no pools: its pods use the host's network, another workload of these is above
    /// it, or its pod template speaks of no subnet.
    pub fn application(self, object: &WorkloadObject) -> Option<SubnetApplication> {
        let spec = &object.spec;
        let template = match self {
            Self::CronJob => &spec.job_template.spec.template,
            _ => &spec.template,
        };
        let annotations = template.metadata.annotations.as_ref().filter(|_| !template.spec.host_network)?;
        if self.is_below_another(&object.metadata) {
            return None;
        }
        let request = parse_request(annotations).transpose()?;
        let scheduled =
            object.status.as_ref().map_or(0, |status: &WorkloadStatus| status.desired_number_scheduled);
        let pods = match self {
            Self::Deployment | Self::ReplicaSet | Self::StatefulSet => Pods::Replicas(spec.replicas),
            Self::DaemonSet => Pods::Scheduled(scheduled),
            Self::Job => Pods::Job { completions: spec.completions, parallelism: spec.parallelism },
            Self::CronJob => {
                let JobSpec { completions, parallelism, .. } = spec.job_template.spec;
                Pods::Job { completions, parallelism }
            }
        };
        let (namespace, name) = names(&object.metadata);
        let application = Application::new(&self.resource().api_version, self.as_str(), namespace, name);
        let uid = object.metadata.uid.clone().unwrap_or_default();
        Some(SubnetApplication { application, uid, request, pods: Some(pods.count()) })
    }

    /// As IPAM finds the workload at the top of a pod (`spiderpool_core::ipam::owner`).
    fn is_below_another(self, meta: &ObjectMeta) -> bool {
        let mut owners =
            meta.owner_references.iter().flatten().filter(|owner| owner.controller == Some(true));
        owners.any(|owner| {
            let above = (owner.api_version.as_str(), owner.kind.as_str());
            match self {
                Self::ReplicaSet => above == ("apps/v1", "Deployment"),
                Self::Job => above == ("batch/v1", "CronJob"),
                _ => false,
            }
        })
    }
}

impl SubnetApplication {
    /// All subnets that it names; none where that cannot be told.
    pub fn subnets(&self) -> Vec<PoolName> {
        let nics = self.request.iter().flat_map(|request| request.nics.all());
        nics.flat_map(|nic| Family::ALL.into_iter().filter_map(|family| nic.of(family).cloned())).collect()
    }

    /// That of a third party which controls a pod, as the pod's annotations say it; `None` if it is another kind of owner, or
    /// they speak of no subnet.
    pub fn of_third_party(
        owner: &OwnerRef,
        namespace: &str,
        annotations: &BTreeMap<String, String>,
    ) -> Option<Self> {
        let application = Application::new(&owner.api_version, &owner.kind, namespace, &owner.name);
        if application.is_watched() || owner.kind == "Node" || !application.is_valid(&owner.uid) {
            return None;
        }
        let request = parse_request(annotations).transpose()?;
        Some(Self { application, uid: owner.uid.clone(), request, pods: None })
    }
}

fn names(meta: &ObjectMeta) -> (&str, &str) {
    (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use spiderpool_core::subnet::PoolSize;

    use super::*;

    fn template(host_network: bool) -> Value {
        let annotations = json!({"ipam.spidernet.io/subnet": r#"{"ipv4":["s1"]}"#, "ipam.spidernet.io/ippool-ip-number": "+1"});
        json!({"metadata": {"annotations": annotations}, "spec": {"hostNetwork": host_network, "containers": [{}]}})
    }

    fn object(spec: &Value, owner: Option<(&str, &str)>) -> WorkloadObject {
        let owners: Vec<_> = owner
            .into_iter()
            .map(|(api_version, kind)| {
                json!({"apiVersion": api_version, "kind": kind, "name": "up", "uid": "o", "controller": true})
            })
            .collect();
        let metadata = json!({"name": "web", "namespace": "ns1", "uid": "u", "ownerReferences": owners});
        let status = json!({"desiredNumberScheduled": 7, "replicas": 9});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec, "status": status})).unwrap()
    }

    #[test]
    fn each_kind_says_how_many_pods_it_has() {
        let job = json!({"completions": 5, "parallelism": 2, "template": template(false)});
        let replicas = json!({"replicas": 3, "template": template(false)});
        for (kind, spec, identity, pods) in [
            (WorkloadKind::Deployment, replicas.clone(), "apps_v1_Deployment_ns1_web", 3),
            (WorkloadKind::ReplicaSet, replicas.clone(), "apps_v1_ReplicaSet_ns1_web", 3),
            (WorkloadKind::StatefulSet, replicas, "apps_v1_StatefulSet_ns1_web", 3),
            (WorkloadKind::DaemonSet, json!({"template": template(false)}), "apps_v1_DaemonSet_ns1_web", 7),
            (WorkloadKind::Job, job.clone(), "batch_v1_Job_ns1_web", 5),
            (WorkloadKind::CronJob, json!({"jobTemplate": {"spec": job}}), "batch_v1_CronJob_ns1_web", 5),
        ] {
            let found = kind.application(&object(&spec, None)).unwrap();
            assert_eq!((found.application.to_string().as_str(), found.pods), (identity, Some(pods)));
            assert_eq!(found.request.unwrap().size, Some(PoolSize::Flexible(1)));
            assert!(found.application.is_watched(), "{identity}");
        }
    }

    #[test]
    fn what_is_below_another_or_on_the_hosts_network_wants_nothing() {
        let spec = json!({"template": template(false)});
        let wants =
            |kind: WorkloadKind, spec: &Value, owner| kind.application(&object(spec, owner)).is_some();
        assert!(!wants(WorkloadKind::ReplicaSet, &spec, Some(("apps/v1", "Deployment"))));
        assert!(wants(WorkloadKind::ReplicaSet, &spec, Some(("argoproj.io/v1alpha1", "Rollout"))));
        assert!(!wants(WorkloadKind::Job, &spec, Some(("batch/v1", "CronJob"))));
        assert!(!wants(WorkloadKind::Deployment, &json!({"template": template(true)}), None));
        assert!(!wants(
            WorkloadKind::Deployment,
            &json!({"template": {"metadata": {"annotations": null}}}),
            None
        ));
    }

    #[test]
    fn third_parties_are_known_by_their_pods() {
        let owner = |api_version: &str, kind: &str| OwnerRef {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            name: "web".to_owned(),
            uid: "u".to_owned(),
        };
        let annotations = [("ipam.spidernet.io/subnet".to_owned(), "junk".to_owned())].into();
        let of = |owner: &OwnerRef| SubnetApplication::of_third_party(owner, "ns1", &annotations);
        let found = of(&owner("apps.kruise.io/v1alpha1", "CloneSet")).unwrap();
        assert_eq!(found.application.to_string(), "apps.kruise.io_v1alpha1_CloneSet_ns1_web");
        assert!(found.request.is_err() && found.pods.is_none());
        for (api_version, kind) in [("apps/v1", "ReplicaSet"), ("batch/v1", "Job"), ("v1", "Node")] {
            assert!(of(&owner(api_version, kind)).is_none(), "{kind}");
        }
        let forged = OwnerRef { uid: "!!-12345".to_owned(), ..owner("apps.kruise.io/v1alpha1", "CloneSet") };
        for owner in [forged, owner("0/v1", "A B")] {
            assert!(of(&owner).is_none(), "nobody can label a pool so: {owner:?}");
        }
    }
}
