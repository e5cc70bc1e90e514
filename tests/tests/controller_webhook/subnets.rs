//! SpiderSubnets and the pools that belong to them.

use serde_json::{Value, json};
use spiderpool_tests::control_plane::{ControlPlane, Kind};
use spiderpool_tests::standalone_controller::StandaloneController;

use crate::hooks::Hooks;

const LABEL: &str = "ipam.spidernet.io/owner-spider-subnet";

/// Webhooks of a controller whose pools belong to subnets. It does not lead: a leader would correct what the tests record. The one
/// that does has made the certificate.
async fn with_subnets(prefix: &str) -> (Hooks<'static>, [StandaloneController; 2]) {
    let hooks = Hooks::new(prefix).await;
    let file = json!({"enableSpiderSubnet": true, "enableValidatingResourcesDeletedWebhook": true});
    let leader = hooks.controller("leader", 0, &[]).await;
    let follower = hooks.controller_with("a", hooks.port, &[], &file).await;
    hooks.configure_with(&Value::Null, true);
    hooks.wait_until_called().await;
    (hooks, [leader, follower])
}

/// The refusal has all parts.
#[track_caller]
fn check_refused(written: Result<Value, String>, parts: &[&str]) {
    let error = written.unwrap_err();
    for part in parts {
        assert!(error.contains(part), "{part:?} is not in {error}");
    }
}

impl Hooks<'_> {
    fn subnet(&self, name: &str, spec: &Value) -> Value {
        self.object("SpiderSubnet", name, spec)
    }

    fn pool(&self, name: &str, spec: &Value) -> Value {
        self.object("SpiderIPPool", name, spec)
    }

    /// Replicas learn of a subnet by a watch.
    async fn wait_until_known(&self, subnet: &str, network: &str) {
        let probe = self.pool("membership", &json!({"subnet": network}));
        let name = self.bench.name(subnet);
        self.bench
            .until("the subnet is known", async || {
                Hooks::dry_run(&probe).is_ok_and(|pool| pool["metadata"]["labels"][LABEL] == json!(name))
            })
            .await;
    }

    /// As the leader records what pools have.
    fn record(&self, subnet: &str, records: &Value) {
        let status = json!({"controlledIPPools": records.to_string()});
        let kind = Kind::spiderpool("SpiderSubnet");
        ControlPlane::shared().patch_status(kind, "", &self.bench.name(subnet), &status).unwrap();
    }
}

/// Upstream's case I00001.
#[tokio::test(flavor = "multi_thread")]
async fn subnets_are_completed_and_all_their_faults_are_in_one_answer() {
    let (hooks, _controllers) = with_subnets("hook-subnets").await;
    let spec = json!({"subnet": "10.140.0.0/16", "ips": ["10.140.0.2", "10.140.0.1"]});
    let subnet = Hooks::write(&hooks.subnet("s", &spec)).unwrap();
    assert_eq!(
        (&subnet["spec"]["ipVersion"], &subnet["spec"]["ips"]),
        (&json!(4), &json!(["10.140.0.1-10.140.0.2"]))
    );
    assert_eq!(subnet["metadata"]["labels"]["ipam.spidernet.io/subnet-cidr"], "10-140-0-0-16");
    assert_eq!(subnet["metadata"]["finalizers"], Value::Null, "that is the leader's");

    hooks.wait_until_known("s", "10.140.0.0/16").await;
    let s = hooks.bench.name("s");
    let spec = json!({
        "subnet": "10.140.0.0/24", "ips": ["10.140.0.9", "10.141.0.1"], "gateway": "10.141.0.1",
        "routes": [{"dst": "0.0.0.0/0", "gw": "10.140.0.1"}],
    });
    check_refused(
        Hooks::write(&hooks.subnet("t", &spec)),
        &[
            &format!("The SpiderSubnet \"{}\" is invalid", hooks.bench.name("t")),
            "spec.ips[1]: Invalid value: \"10.141.0.1\": 10.141.0.1 is not inside of spec.subnet 10.140.0.0/24",
            "spec.gateway: Invalid value: \"10.141.0.1\": ",
            "please specify 'spec.gateway' to configure the default route",
            &format!("overlap with SpiderSubnet {s} which 'spec.subnet' is 10.140.0.0/16"),
        ],
    );
    let equal = hooks.subnet("t", &json!({"subnet": "10.140.0.0/16"}));
    check_refused(Hooks::write(&equal), &[&format!("overlap with SpiderSubnet {s} ")]);
    let moved = hooks.subnet("s", &json!({"subnet": "10.140.0.0/24", "ips": ["10.140.0.1-10.140.0.2"]}));
    check_refused(Hooks::write(&moved), &["spec.subnet: Forbidden: is not changeable"]);
    // Upstream's case I00002.
    let wider =
        json!({"subnet": "10.140.0.0/16", "ips": ["10.140.0.1-10.140.0.9"], "excludeIPs": ["10.140.0.5"]});
    Hooks::write(&hooks.subnet("s", &wider)).unwrap();
    Hooks::write(&hooks.subnet("far", &json!({"subnet": "fd40::/64", "ips": ["fd40::1"]}))).unwrap();
}

/// Upstream's case D00008.
#[tokio::test(flavor = "multi_thread")]
async fn a_pool_becomes_its_subnets_and_inherits_what_it_does_not_say() {
    let (hooks, _controllers) = with_subnets("hook-inherit").await;
    let subnet = |ips: &str, gateway: &str| {
        hooks.subnet(
            "s",
            &json!({
                "subnet": "10.141.0.0/16", "ips": [ips], "gateway": gateway,
                "routes": [{"dst": "10.0.0.0/8", "gw": "10.141.0.1"}],
            }),
        )
    };
    let made = Hooks::write(&subnet("10.141.0.2-10.141.0.99", "10.141.0.1")).unwrap();
    hooks.wait_until_known("s", "10.141.0.0/16").await;
    let pool = |name: &str, more: &Value| {
        let mut spec = json!({"subnet": "10.141.0.0/16"});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        hooks.pool(name, &spec)
    };
    let plain = Hooks::write(&pool("plain", &json!({"ips": ["10.141.0.2-10.141.0.9"]}))).unwrap();
    let name = hooks.bench.name("s");
    assert_eq!(plain["metadata"]["labels"][LABEL], json!(name));
    assert_eq!(
        plain["metadata"]["ownerReferences"],
        json!([{
            "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderSubnet", "name": name,
            "uid": made["metadata"]["uid"], "controller": true, "blockOwnerDeletion": true,
        }])
    );
    assert_eq!(plain["spec"]["gateway"], "10.141.0.1");
    assert_eq!(plain["spec"]["routes"], json!([{"dst": "10.0.0.0/8", "gw": "10.141.0.1"}]));

    let heir = json!({"ips": ["10.141.0.11"]});
    let heir = Hooks::write(&pool("heir", &heir)).unwrap();
    assert_eq!(heir["spec"]["gateway"], "10.141.0.1");

    let own = json!({"ips": ["10.141.0.10"], "gateway": "10.141.255.254", "routes": []});
    let own = Hooks::write(&pool("own", &own)).unwrap();
    assert_eq!(own["spec"]["gateway"], "10.141.255.254");
    assert!(own["spec"]["routes"].as_array().is_none_or(Vec::is_empty), "{own}");

    // What somebody takes away later stays away, and what the subnet says later is for later pools.
    let plane = ControlPlane::shared();
    let taken = r#"[{"op": "remove", "path": "/spec/gateway"}]"#;
    let arguments = ["patch", "sp", &hooks.bench.name("plain"), "--type=json", "-o", "json", "-p", taken];
    let patched: Value = serde_json::from_str(&plane.kubectl(&arguments).unwrap()).unwrap();
    assert_eq!(patched["spec"]["gateway"], Value::Null);
    Hooks::write(&subnet("10.141.0.2-10.141.0.99", "10.141.255.253")).unwrap();
    let gateway = |name: &str| {
        let found = plane.find(Kind::spiderpool("SpiderIPPool"), "", &hooks.bench.name(name)).unwrap();
        found.unwrap()["spec"]["gateway"].clone()
    };
    assert_eq!(gateway("own"), "10.141.255.254");
    // Upstream's case I00005: also where the webhooks see the pool again.
    assert_eq!(gateway("heir"), "10.141.0.1");
    let disabled = r#"{"spec": {"disable": true}}"#;
    plane.kubectl(&["patch", "sp", &hooks.bench.name("heir"), "--type=merge", "-p", disabled]).unwrap();
    assert_eq!(gateway("heir"), "10.141.0.1");

    // Upstream's case S00004 among them.
    let outside = pool("outside", &json!({"ips": ["10.141.0.98-10.141.0.100"]}));
    let part =
        format!("add some IP ranges [10.141.0.100] that are not contained in controller SpiderSubnet {name}");
    check_refused(Hooks::write(&outside), &[&part]);
    check_refused(Hooks::write(&pool("own", &json!({"ips": ["10.141.0.10", "10.141.0.100"]}))), &[&part]);
    let excluding = json!({"ips": ["10.141.0.98-10.141.0.100"], "excludeIPs": ["10.141.0.100"]});
    Hooks::write(&pool("excluding", &excluding)).unwrap();
    // At once: what the watch has not told of yet is read.
    Hooks::write(&subnet("10.141.0.2-10.141.0.200", "10.141.255.253")).unwrap();
    Hooks::write(&pool("later", &json!({"ips": ["10.141.0.101-10.141.0.200"]}))).unwrap();
    // Upstream's case I00004.
    let spec = json!({"subnet": "10.141.0.0/16", "ips": ["10.141.0.2-10.141.0.220"], "excludeIPs": ["10.141.0.210"]});
    Hooks::write(&hooks.subnet("s", &spec)).unwrap();
    let part =
        format!("add some IP ranges [10.141.0.210] that are not contained in controller SpiderSubnet {name}");
    check_refused(Hooks::write(&pool("excluded", &json!({"ips": ["10.141.0.209-10.141.0.211"]}))), &[&part]);
    let around = json!({"ips": ["10.141.0.209", "10.141.0.211"]});
    Hooks::write(&pool("around", &around)).unwrap();

    let narrow = hooks.pool("narrow", &json!({"subnet": "10.141.9.0/24"}));
    let part = format!("overlap with SpiderSubnet {name} which 'spec.subnet' is 10.141.0.0/16");
    check_refused(Hooks::write(&narrow), &[&part]);
    let orphan = Hooks::write(&hooks.pool("orphan", &json!({"subnet": "10.239.0.0/24"}))).unwrap();
    assert_eq!(orphan["metadata"]["ownerReferences"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_pools_have_stays_in_their_subnet() {
    let (hooks, _controllers) = with_subnets("hook-held").await;
    let subnet = |ips: &[&str]| hooks.subnet("s", &json!({"subnet": "10.142.0.0/16", "ips": ips}));
    let pool = |name: &str, subnet: &str, ips: &str| {
        Hooks::write(&hooks.pool(name, &json!({"subnet": subnet, "ips": [ips]})))
    };
    let until_refused = async |part: &str| {
        hooks
            .bench
            .until("the pool is known", async || {
                let error = Hooks::dry_run(&subnet(&["10.142.0.1-10.142.0.9"]));
                error.is_err_and(|error| error.contains(part))
            })
            .await;
    };
    let [member, narrow] = ["member", "narrow"].map(|name| hooks.bench.name(name));
    pool("narrow", "10.142.9.0/24", "10.142.9.1").unwrap();
    let part = format!("overlap with SpiderIPPool {narrow} which 'spec.subnet' is 10.142.9.0/24");
    until_refused(&part).await;
    ControlPlane::shared().kubectl(&["delete", "sp", &narrow, "--wait=false"]).unwrap();
    hooks
        .bench
        .until("the pool is gone", async || pool("member", "10.142.0.0/16", "10.142.0.50").is_ok())
        .await;
    let part = format!("SpiderIPPool {member} owns some IP addresses [10.142.0.50] that SpiderSubnet");
    until_refused(&part).await;
    Hooks::write(&subnet(&["10.142.0.1-10.142.0.99"])).unwrap();

    let records = json!({
        "auto": {"ips": ["10.142.0.8-10.142.0.12"], "application": "apps_v1_Deployment_ns_web"},
        (member.as_str()): {"ips": ["10.142.0.50"]},
    });
    hooks.record("s", &records);
    let used = |ranges: &str, pool: &str| {
        format!("spec.ips: Forbidden: remove some IP ranges [{ranges}] that is being used by IPPool {pool}")
    };
    check_refused(
        Hooks::write(&subnet(&["10.142.0.1-10.142.0.9"])),
        &[&used("10.142.0.10-10.142.0.12", "auto"), &used("10.142.0.50", &member)],
    );
    Hooks::write(&subnet(&["10.142.0.8-10.142.0.12", "10.142.0.50"])).unwrap();
    // What the record does not say, the pool does.
    hooks.record("s", &json!({}));
    check_refused(Hooks::write(&subnet(&["10.142.0.1"])), &[&used("10.142.0.50", &member)]);
    check_deletion(&hooks, &member).await;
}

async fn check_deletion(hooks: &Hooks<'_>, member: &str) {
    let (plane, subnet) = (ControlPlane::shared(), hooks.bench.name("s"));
    let delete =
        || plane.kubectl(&["delete", "ss", &subnet, "--wait=false"]).map_err(|error| format!("{error:#}"));
    let error = delete().unwrap_err();
    let part = format!("cannot delete a SpiderSubnet with allocated IPs(1): IPPool {member} have them");
    assert!(error.contains(&part), "{error}");
    plane.kubectl(&["delete", "sp", member, "--wait=false"]).unwrap();
    hooks.bench.until("no pool has addresses of it", async || delete().is_ok()).await;
    // The leader removes its finalizer.
    hooks
        .bench
        .until("it is gone", async || {
            plane.find(Kind::spiderpool("SpiderSubnet"), "", &subnet).unwrap().is_none()
        })
        .await;
}

/// Upstream's case I00018.
#[tokio::test(flavor = "multi_thread")]
async fn an_applications_pool_has_what_its_subnet_records_for_it() {
    let (hooks, _controllers) = with_subnets("hook-auto").await;
    let spec = json!({"subnet": "10.143.0.0/16", "ips": ["10.143.0.1-10.143.0.99"]});
    Hooks::write(&hooks.subnet("s", &spec)).unwrap();
    hooks.wait_until_known("s", "10.143.0.0/16").await;
    let own = json!({"ipam.spidernet.io/app-name": "web", "ipam.spidernet.io/app-kind": "Deployment"});
    let auto = |ips: &[&str], affinity: &Value| {
        let mut pool =
            hooks.pool("auto", &json!({"subnet": "10.143.0.0/16", "ips": ips, "podAffinity": affinity}));
        pool["metadata"]["labels"]["ipam.spidernet.io/owner-application-name"] = json!("web");
        pool
    };
    let of_app = json!({"matchLabels": own});
    let different =
        "it's illegal to update AutoPool.Spec.IPs that are different from those that SpiderSubnet";
    check_refused(Hooks::write(&auto(&["10.143.0.1-10.143.0.2"], &of_app)), &[different]);
    Hooks::write(&auto(&[], &of_app)).unwrap();
    let name = hooks.bench.name("auto");
    hooks.record("s", &json!({(name.as_str()): {"ips": ["10.143.0.1-10.143.0.2"]}}));
    // At once, as the leader does it.
    Hooks::write(&auto(&["10.143.0.1", "10.143.0.2"], &of_app)).unwrap();
    for ips in [&["10.143.0.1-10.143.0.3"][..], &["10.143.0.1"], &[]] {
        check_refused(Hooks::write(&auto(ips, &of_app)), &[different, "[10.143.0.1-10.143.0.2], and not ["]);
    }
    let mut more = own.clone();
    more["team"] = json!("a");
    let affinity = json!({"matchLabels": more, "matchExpressions": [{"key": "tier", "operator": "Exists"}]});
    let part = "it's invalid to add additional podAffinity";
    check_refused(
        Hooks::write(&auto(&["10.143.0.1-10.143.0.2"], &affinity)),
        &[part, "\"matchLabels team=a\"", "\"matchExpressions tier\""],
    );
    let disabled = r#"{"spec": {"disable": true}}"#;
    ControlPlane::shared().kubectl(&["patch", "sp", &name, "--type=merge", "-p", disabled]).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_feature_subnets_are_checked_and_pools_are_nobodys() {
    let hooks = Hooks::new("hook-off").await;
    let _controller = hooks.controller("a", hooks.port, &[]).await;
    hooks.configure();
    hooks.wait_until_called().await;
    let subnet = |name: &str, ips: &str| {
        hooks.subnet(name, &json!({"subnet": "10.144.0.0/16", "ips": [ips], "gateway": "10.144.0.1"}))
    };
    check_refused(Hooks::write(&subnet("s", "10.145.0.2")), &["10.145.0.2 is not inside of spec.subnet"]);
    Hooks::write(&subnet("s", "10.144.0.2-10.144.0.9")).unwrap();
    let part = format!("overlap with SpiderSubnet {} ", hooks.bench.name("s"));
    hooks
        .bench
        .until("the subnet is known", async || {
            Hooks::dry_run(&subnet("t", "10.144.0.3")).is_err_and(|error| error.contains(&part))
        })
        .await;
    let spec = json!({"subnet": "10.144.0.0/16", "ips": ["10.144.0.99"]});
    let pool = Hooks::write(&hooks.pool("p", &spec)).unwrap();
    assert_eq!(
        (&pool["metadata"]["ownerReferences"], &pool["spec"]["gateway"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(pool["metadata"]["labels"][LABEL], Value::Null);
}
