//! Command line and environment of `spiderpool-controller daemon`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{ArgAction, Args};
use spiderpool_core::Unsupported;
use spiderpool_runtime::environment::{any_seconds, required, seconds, switch, trimmed};
use spiderpool_runtime::leader::Timing;
use spiderpool_runtime::logging::Level;

use super::certificate_method::CertificateMethod;
use super::dns_name::{certificate_name, domain};

/// Arguments of `spiderpool-controller daemon`.
#[derive(Debug, Clone, Args)]
pub struct Daemon {
    /// The configuration file, YAML.
    #[arg(long, value_name = "FILE", default_value = "/tmp/spiderpool/config-map/conf.yml")]
    pub config_path: PathBuf,
    /// What the Deployment gives by environment.
    #[command(flatten)]
    pub environment: Environment,
}

/// The environment. Every variable is a flag as well, for running by hand.
#[derive(Debug, Clone, Args)]
pub struct Environment {
    /// debug, info, warn, error, fatal or panic.
    #[arg(long, env = "SPIDERPOOL_LOG_LEVEL", default_value = "info", value_parser = trimmed::<Level>)]
    pub log_level: Level,
    /// Whether metrics are served.
    #[arg(long, env = "SPIDERPOOL_ENABLED_METRIC", default_value = "false", value_parser = switch, action = ArgAction::Set)]
    pub enabled_metric: bool,
    /// Port of the metrics.
    #[arg(long, env = "SPIDERPOOL_METRIC_HTTP_PORT", default_value = "5721", value_parser = trimmed::<u16>)]
    pub metric_http_port: u16,
    /// Whether metrics for debugging are served with the others.
    #[arg(long, env = "SPIDERPOOL_ENABLED_DEBUG_METRIC", default_value = "false", value_parser = switch, action = ArgAction::Set)]
    pub enabled_debug_metric: bool,
    /// Seconds between two counts of pools and subnets for the metrics.
    #[arg(long, env = "SPIDERPOOL_METRIC_RENEW_PERIOD", default_value = "120", value_parser = seconds)]
    pub metric_renew_period: Duration,
    /// Port of the health probes.
    #[arg(long, env = "SPIDERPOOL_HEALTH_PORT", default_value = "5720", value_parser = trimmed::<u16>)]
    pub health_port: u16,
    /// Namespace of the controller's own pod; the Lease of the leader is there.
    #[arg(long, env = "SPIDERPOOL_POD_NAMESPACE", value_parser = required)]
    pub pod_namespace: String,
    /// Name of the controller's own pod: its identity in the election.
    #[arg(long, env = "SPIDERPOOL_POD_NAME", value_parser = required)]
    pub pod_name: String,
    /// Name of the agents' service account, in the controller's namespace: upstream's agents have had it before, and pools that they
    /// have allocated from are imported when it may not write their status any more.
    #[arg(long, env = "SPIDERPOOL_AGENT_SERVICE_ACCOUNT", default_value = "spiderpool-agent", value_parser = required)]
    pub agent_service_account: String,
    /// Seconds for which requests are answered after the shutdown was requested, 0 to 20: longer than endpoints take to reach
    /// every node, as a rule.
    #[arg(long, env = "SPIDERPOOL_SHUTDOWN_DELAY_SECONDS", default_value = "5", value_parser = shutdown_delay)]
    pub shutdown_delay: Duration,
    /// The webhooks.
    #[command(flatten)]
    pub webhook: WebhookEnvironment,
    /// Freeing of addresses.
    #[command(flatten)]
    pub garbage_collection: GarbageCollection,
    /// The coordinator.
    #[command(flatten)]
    pub coordinator: Coordinator,
    /// Whether SpiderMultusConfigs become NetworkAttachmentDefinitions.
    #[arg(long, env = "SPIDERPOOL_MULTUS_CONFIG_ENABLED", default_value = "false", value_parser = switch, action = ArgAction::Set)]
    pub multus_config_enabled: bool,
    /// The election.
    #[command(flatten)]
    pub election: ElectionTiming,
}

/// The webhooks and their certificate.
#[derive(Debug, Clone, Args)]
pub struct WebhookEnvironment {
    /// Port of the webhooks.
    #[arg(long, env = "SPIDERPOOL_WEBHOOK_PORT", default_value = "5722", value_parser = trimmed::<u16>)]
    pub webhook_port: u16,
    /// The controllers' Deployment, by whose name the Service and the webhooks' configurations are called too.
    #[arg(long = "controller-name", env = "SPIDERPOOL_CONTROLLER_DEPLOYMENT_NAME", default_value = "spiderpool-controller", value_parser = required)]
    pub controller_name: String,
    /// Where the certificate comes from: auto, provided or certmanager.
    #[arg(long = "webhook-tls-method", env = "SPIDERPOOL_WEBHOOK_TLS_METHOD", default_value = "auto", value_parser = trimmed::<CertificateMethod>)]
    pub method: CertificateMethod,
    /// The Secret with the certificate, in the controller's namespace.
    #[arg(long = "webhook-tls-secret", env = "SPIDERPOOL_WEBHOOK_TLS_SECRET", default_value = "spiderpool-controller-server-certs", value_parser = required)]
    pub secret: String,
    /// Domain of the cluster's DNS.
    #[arg(long = "cluster-dns-domain", env = "SPIDERPOOL_CLUSTER_DNS_DOMAIN", default_value = "cluster.local", value_parser = domain)]
    pub domain: String,
    /// Further names of a certificate that is made here.
    #[arg(long = "webhook-extra-dns-names", env = "SPIDERPOOL_WEBHOOK_EXTRA_DNS_NAMES", default_value = "", value_parser = names)]
    pub extra_names: List<String>,
    /// Further addresses of a certificate that is made here.
    #[arg(long = "webhook-extra-ip-addresses", env = "SPIDERPOOL_WEBHOOK_EXTRA_IP_ADDRESSES", default_value = "", value_parser = list::<IpAddr>)]
    pub extra_addresses: List<IpAddr>,
    /// Seconds for which a certificate that is made here is valid.
    #[arg(long = "webhook-cert-validity", env = "SPIDERPOOL_WEBHOOK_CERT_VALIDITY", default_value = "6307200000", value_parser = seconds)]
    pub validity: Duration,
    /// Seconds for which its CA is valid.
    #[arg(long = "webhook-ca-validity", env = "SPIDERPOOL_WEBHOOK_CA_VALIDITY", default_value = "6307200000", value_parser = seconds)]
    pub ca_validity: Duration,
}

/// Values between commas.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct List<T>(pub Vec<T>);

fn names(text: &str) -> Result<List<String>, String> {
    let words = text.split(',').filter(|word| !word.trim().is_empty());
    words.map(certificate_name).collect::<Result<_, _>>().map(List)
}

fn list<T: FromStr<Err: std::fmt::Display>>(text: &str) -> Result<List<T>, String> {
    let words = text.split(',').filter(|word| !word.trim().is_empty());
    words.map(trimmed::<T>).collect::<Result<_, _>>().map(List)
}

/// Freeing of addresses.
#[derive(Debug, Clone, Args)]
pub struct GarbageCollection {
    /// Whether the leader frees addresses. The agents free those of their nodes in any case.
    #[arg(long = "gc-ip-enabled", env = "SPIDERPOOL_GC_IP_ENABLED", default_value = "true", value_parser = switch, action = ArgAction::Set)]
    pub enabled: bool,
    /// Whether a terminating pod on a ready node is finished once its grace period is over and its containers have stopped.
    #[arg(long = "gc-terminating-on-ready-node", env = "SPIDERPOOL_GC_STATELESS_TERMINATING_POD_ON_READY_NODE_ENABLED", default_value = "true", value_parser = switch, action = ArgAction::Set)]
    pub terminating_on_ready_node: bool,
    /// Whether a terminating pod on a node that is not ready is finished once its grace period is over.
    #[arg(long = "gc-terminating-on-not-ready-node", env = "SPIDERPOOL_GC_STATELESS_TERMINATING_POD_ON_NOT_READY_NODE_ENABLED", default_value = "true", value_parser = switch, action = ArgAction::Set)]
    pub terminating_on_not_ready_node: bool,
    /// Not supported yet: only false is accepted.
    #[arg(long = "gc-running-without-ips", env = "SPIDERPOOL_GC_ENABLE_STATELESS_RUNNING_POD_ON_EMPTY_POD_STATUS_IPS", default_value = "false", value_parser = not_running_pods, action = ArgAction::Set)]
    pub running_without_ips: bool,
    /// Seconds that are added to every grace period.
    #[arg(long = "gc-additional-grace-delay", env = "SPIDERPOOL_GC_ADDITIONAL_GRACE_DELAY", default_value = "0", value_parser = any_seconds)]
    pub additional_grace_delay: Duration,
    /// Seconds between two full resyncs with the API server.
    #[arg(long = "gc-interval", env = "SPIDERPOOL_GC_DEFAULT_INTERVAL_DURATION", default_value = "600", value_parser = seconds)]
    pub interval: Duration,
}

/// The coordinator.
#[derive(Debug, Clone, Args)]
pub struct Coordinator {
    /// Whether the status of the SpiderCoordinator is written.
    #[arg(long, env = "SPIDERPOOL_COORDINATOR_ENABLED", default_value = "true", value_parser = switch, action = ArgAction::Set)]
    pub coordinator_enabled: bool,
    /// Its name.
    #[arg(long, env = "SPIDERPOOL_COORDINATOR_DEAFULT_NAME", default_value = "default", value_parser = required)]
    pub coordinator_name: String,
    /// The node's directory for CNI configuration, which podCIDRType auto looks into.
    #[arg(long, env = "SPIDERPOOL_CNI_CONFIG_DIR", value_name = "DIR")]
    pub cni_config_dir: Option<PathBuf>,
    /// Cilium's ConfigMap, as namespace/name.
    #[arg(long, env = "SPIDERPOOL_CILIUM_CONFIGMAP_NAMESPACE_NAME", default_value = "kube-system/cilium-config", value_parser = namespaced)]
    pub cilium_config_map: (String, String),
}

/// The election.
#[derive(Debug, Clone, Args)]
pub struct ElectionTiming {
    /// Seconds after which a Lease that was not renewed has expired.
    #[arg(long = "leader-duration", env = "SPIDERPOOL_LEADER_DURATION", default_value = "15", value_parser = seconds)]
    pub duration: Duration,
    /// Seconds after which a leader that cannot renew its Lease stops; fewer than the duration.
    #[arg(long = "leader-renew-deadline", env = "SPIDERPOOL_LEADER_RENEW_DEADLINE", default_value = "10", value_parser = seconds)]
    pub renew_deadline: Duration,
    /// Seconds between two reads or renewals of the Lease; fewer than the deadline.
    #[arg(long = "leader-retry-period", env = "SPIDERPOOL_LEADER_RETRY_PERIOD", default_value = "2", value_parser = seconds)]
    pub retry_period: Duration,
}

impl ElectionTiming {
    pub fn timing(&self) -> anyhow::Result<Timing> {
        anyhow::ensure!(
            self.retry_period < self.renew_deadline && self.renew_deadline < self.duration,
            "SPIDERPOOL_LEADER_RETRY_PERIOD ({:?}), _RENEW_DEADLINE ({:?}) and _DURATION ({:?}) must ascend",
            self.retry_period,
            self.renew_deadline,
            self.duration
        );
        Ok(Timing { duration: self.duration, renew_deadline: self.renew_deadline, retry: self.retry_period })
    }
}

fn namespaced(text: &str) -> Result<(String, String), String> {
    match text.trim().split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok((namespace.to_owned(), name.to_owned()))
        }
        _ => Err(format!("{text:?} is not of the form namespace/name")),
    }
}

/// With what follows it is less than the pod's grace period.
const LONGEST_SHUTDOWN_DELAY: Duration = Duration::from_secs(20);

fn shutdown_delay(text: &str) -> Result<Duration, String> {
    match any_seconds(text)? {
        delay if delay <= LONGEST_SHUTDOWN_DELAY => Ok(delay),
        _ => Err("it must be from 0 to 20".to_owned()),
    }
}

fn not_running_pods(text: &str) -> Result<bool, String> {
    if switch(text)? { Err(Unsupported::GcOfRunningPods.to_string()) } else { Ok(false) }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Probe {
        #[command(flatten)]
        daemon: Daemon,
    }

    fn parse(extra: &[&str]) -> Result<Environment, String> {
        let required = ["probe", "--pod-namespace", "kube-system", "--pod-name", "a"];
        let probe = Probe::try_parse_from(required.iter().chain(extra)).map_err(|error| error.to_string())?;
        Ok(probe.daemon.environment)
    }

    #[test]
    fn defaults_are_those_of_upstream() {
        let environment = parse(&[]).unwrap();
        assert_eq!((environment.health_port, environment.metric_http_port), (5720, 5721));
        assert!(!environment.enabled_metric && !environment.enabled_debug_metric);
        assert_eq!(environment.metric_renew_period.as_secs(), 120);
        assert_eq!(environment.election.timing().unwrap(), Timing::default());
        let gc = environment.garbage_collection;
        assert!(gc.enabled && gc.terminating_on_ready_node && gc.terminating_on_not_ready_node);
        assert_eq!((gc.interval.as_secs(), gc.additional_grace_delay.as_secs()), (600, 0));
        assert_eq!(environment.coordinator.coordinator_name, "default");
        let cilium = ("kube-system".to_owned(), "cilium-config".to_owned());
        assert_eq!(environment.coordinator.cilium_config_map, cilium);
        assert_eq!(environment.coordinator.cni_config_dir, None);
        let webhook = environment.webhook;
        assert_eq!((webhook.webhook_port, webhook.method), (5722, CertificateMethod::Auto));
        assert_eq!(webhook.secret, "spiderpool-controller-server-certs");
    }

    #[test]
    fn the_shutdown_is_delayed_by_no_more_than_the_grace_period_leaves() {
        assert_eq!(parse(&[]).unwrap().shutdown_delay.as_secs(), 5);
        for seconds in ["0", "20"] {
            let delay = parse(&["--shutdown-delay", seconds]).unwrap().shutdown_delay;
            assert_eq!(delay.as_secs().to_string(), seconds);
        }
        assert!(parse(&["--shutdown-delay", "21"]).unwrap_err().contains("from 0 to 20"));
    }

    #[test]
    fn names_and_addresses_of_the_certificate_are_between_commas() {
        let webhook = parse(&["--webhook-extra-ip-addresses", "127.0.0.1, ::1"]).unwrap().webhook;
        assert_eq!(webhook.extra_addresses.0.len(), 2);
        assert_eq!(webhook.extra_names, List::default());
        assert!(parse(&["--webhook-extra-ip-addresses", "localhost"]).is_err());
        let webhook = parse(&["--webhook-extra-dns-names", "A.test., *.b.test"]).unwrap().webhook;
        assert_eq!(webhook.extra_names.0, ["a.test", "*.b.test"]);
        for (flag, value) in [("--webhook-extra-dns-names", "a.test,b_c"), ("--cluster-dns-domain", "a..b")] {
            assert!(parse(&[flag, value]).unwrap_err().contains("is not a DNS"), "{value}");
        }
        assert!(parse(&["--webhook-tls-method", "none"]).is_err());
    }

    #[test]
    fn unsupported_and_inconsistent_values_are_refused() {
        let error = parse(&["--gc-running-without-ips", "true"]).unwrap_err();
        assert!(error.contains("not supported yet"), "{error}");
        let timing = parse(&["--leader-renew-deadline", "20"]).unwrap().election.timing();
        assert!(timing.unwrap_err().to_string().contains("must ascend"));
        assert!(parse(&["--pod-name", " "]).is_err());
        for map in ["cilium-config", "/cilium-config", "a/", "a/b/c"] {
            assert!(parse(&["--cilium-config-map", map]).unwrap_err().contains("namespace/name"), "{map}");
        }
    }
}
