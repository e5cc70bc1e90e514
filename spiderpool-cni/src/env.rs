//! The request as the runtime passes it: `CNI_*` variables and `CNI_ARGS`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use spiderpool_core::ipam::parse_requested;
use spiderpool_core::names::{ContainerId, IfName, NameError, PodName, PodUid};
use thiserror::Error;

/// A CNI operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Set up.
    Add,
    /// Tear down.
    Del,
    /// Compare with what was set up.
    Check,
    /// Tell the versions spoken.
    Version,
    /// Since 1.1.0: whether ADD would work.
    Status,
    /// Since 1.1.0: tear down what is not in a list.
    Gc,
}

/// Who is to be set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// `CNI_CONTAINERID`.
    pub container_id: ContainerId,
    /// `CNI_NETNS`; may be empty at DEL.
    pub netns: String,
    /// `CNI_IFNAME`.
    pub nic: IfName,
    /// From `CNI_ARGS`; `None` where the runtime names no pod, and at DEL also where it names none properly.
    pub pod: Option<PodName>,
    /// From `CNI_ARGS`; `None` where the runtime does not pass it.
    pub pod_uid: Option<PodUid>,
    /// `IP` of `CNI_ARGS`: addresses that are asked for; of no interest at DEL.
    pub ips: Vec<IpAddr>,
}

/// `CNI_ARGS` as written.
#[derive(Debug, Default)]
struct CniArgs {
    /// `K8S_POD_NAMESPACE`.
    namespace: String,
    /// `K8S_POD_NAME`.
    name: String,
    /// `K8S_POD_UID`.
    uid: String,
    /// `IP`, comma separated.
    ips: String,
}

/// A variable is missing or wrong; the message names it, as the specification asks.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EnvError {
    /// Not set.
    #[error("required env variables [{}] missing", .0.join(","))]
    Missing(Vec<&'static str>),
    /// Not a command.
    #[error("CNI_COMMAND {0:?} is unknown")]
    Command(String),
    /// Not a container ID.
    #[error(
        "CNI_CONTAINERID {0:?} is invalid: it must begin with a letter or digit and hold letters, digits, '_', '.', '-'"
    )]
    ContainerId(String),
    /// Not an interface name.
    #[error("CNI_IFNAME is invalid: {0}")]
    IfName(#[from] NameError),
    /// `CNI_ARGS` name no pod properly.
    #[error("failed to load CNI ENV args: CNI_ARGS: {0}")]
    Pod(NameError),
    /// `CNI_ARGS` name no pod.
    #[error("failed to load CNI ENV args: CNI_ARGS has neither K8S_POD_NAMESPACE nor K8S_POD_NAME")]
    NoPod,
    /// `CNI_ARGS` cannot be understood.
    #[error("failed to load CNI ENV args: CNI_ARGS {text:?}: {reason}")]
    Args {
        /// Its value.
        text: String,
        /// What is wrong.
        reason: String,
    },
}

impl FromStr for Command {
    type Err = EnvError;

    fn from_str(text: &str) -> Result<Self, EnvError> {
        Ok(match text {
            "ADD" => Self::Add,
            "DEL" => Self::Del,
            "CHECK" => Self::Check,
            "VERSION" => Self::Version,
            "STATUS" => Self::Status,
            "GC" => Self::Gc,
            "" => return Err(EnvError::Missing(vec!["CNI_COMMAND"])),
            _ => return Err(EnvError::Command(text.to_owned())),
        })
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Version => "VERSION",
            Self::Status => "STATUS",
            Self::Gc => "GC",
        })
    }
}

impl Command {
    /// Whether it is about a network; the others are about one attachment.
    pub fn is_of_network(self) -> bool {
        matches!(self, Self::Status | Self::Gc)
    }
}

impl Request {
    /// Reads the variables that `command` needs through `variable`; `None` for a command that is about a network.
    pub fn read(
        command: Command,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, EnvError> {
        if command.is_of_network() {
            return Ok(None);
        }
        let get = |name| variable(name).unwrap_or_default();
        let (container_id, netns, nic) = (get("CNI_CONTAINERID"), get("CNI_NETNS"), get("CNI_IFNAME"));
        let needed = [
            ("CNI_CONTAINERID", container_id.is_empty()),
            ("CNI_NETNS", netns.is_empty() && command != Command::Del),
            ("CNI_IFNAME", nic.is_empty()),
        ];
        let missing: Vec<_> =
            needed.into_iter().filter(|(_, missing)| *missing).map(|(name, _)| name).collect();
        if !missing.is_empty() {
            return Err(EnvError::Missing(missing));
        }
        let container_id =
            container_id.parse::<ContainerId>().map_err(|_| EnvError::ContainerId(container_id))?;
        // Deleting must not fail for an argument that nobody needs.
        let (pod, pod_uid, ips) = if command == Command::Del {
            let args = CniArgs::parse_known(&get("CNI_ARGS"));
            (args.pod().ok().flatten(), args.uid().ok().flatten(), Vec::new())
        } else {
            let args = CniArgs::parse(&get("CNI_ARGS"))?;
            (args.pod()?, args.uid()?, args.ips()?)
        };
        Ok(Some(Self { container_id, netns, nic: nic.parse()?, pod, pod_uid, ips }))
    }

    /// The pod, for what cannot go on without one.
    pub fn pod(&self) -> Result<&PodName, EnvError> {
        self.pod.as_ref().ok_or(EnvError::NoPod)
    }
}

impl CniArgs {
    fn pod(&self) -> Result<Option<PodName>, EnvError> {
        if self.namespace.is_empty() && self.name.is_empty() {
            return Ok(None);
        }
        PodName::new(self.namespace.as_str(), self.name.as_str()).map(Some).map_err(EnvError::Pod)
    }

    fn uid(&self) -> Result<Option<PodUid>, EnvError> {
        if self.uid.is_empty() { Ok(None) } else { self.uid.parse().map(Some).map_err(EnvError::Pod) }
    }

    fn ips(&self) -> Result<Vec<IpAddr>, EnvError> {
        let texts = self.ips.split(',').filter(|text| !text.is_empty());
        let parse = |text: &str| {
            parse_requested(text).ok_or_else(|| EnvError::Args {
                text: format!("IP={}", self.ips),
                reason: format!("{text:?} is not an IP address"),
            })
        };
        texts.map(parse).collect()
    }

    /// Parses `KEY=VALUE;KEY=VALUE`. A key that is not known is an error unless `IgnoreUnknown` is 1 or true.
    fn parse(text: &str) -> Result<Self, EnvError> {
        let error = |reason: String| EnvError::Args { text: text.to_owned(), reason };
        let mut ignore_unknown = false;
        let mut unknown = None;
        let mut pod = Self::default();
        for pair in text.split(';').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').ok_or_else(|| error(format!("{pair:?} has no '='")))?;
            if key == "IgnoreUnknown" {
                ignore_unknown = match value {
                    "1" | "true" | "True" | "TRUE" => true,
                    "0" | "false" | "False" | "FALSE" => false,
                    _ => return Err(error(format!("IgnoreUnknown {value:?} is neither true nor false"))),
                };
            } else if !pod.set(key, value) {
                unknown.get_or_insert(key);
            }
        }
        match unknown {
            Some(key) if !ignore_unknown => {
                Err(error(format!("unknown key {key:?} without IgnoreUnknown=1")))
            }
            _ => Ok(pod),
        }
    }

    fn parse_known(text: &str) -> Self {
        let mut pod = Self::default();
        for (key, value) in text.split(';').filter_map(|pair| pair.split_once('=')) {
            pod.set(key, value);
        }
        pod
    }

    /// Whether the key is known.
    fn set(&mut self, key: &str, value: &str) -> bool {
        match key {
            "K8S_POD_NAMESPACE" => value.clone_into(&mut self.namespace),
            "K8S_POD_NAME" => value.clone_into(&mut self.name),
            "K8S_POD_UID" => value.clone_into(&mut self.uid),
            "IP" => value.clone_into(&mut self.ips),
            "K8S_POD_INFRA_CONTAINER_ID" => {}
            _ => return false,
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(command: Command, pairs: &[(&str, &str)]) -> Result<Request, EnvError> {
        let variable = |name: &str| pairs.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        Request::read(command, variable).map(Option::unwrap)
    }

    const ADD: [(&str, &str); 4] = [
        ("CNI_CONTAINERID", "c0ffee"),
        ("CNI_NETNS", "/var/run/netns/x"),
        ("CNI_IFNAME", "net1"),
        ("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=pod;K8S_POD_UID=u;MULTUS=x"),
    ];

    #[test]
    fn a_kubelets_request() {
        let request = read(Command::Add, &ADD).unwrap();
        assert_eq!(request.container_id.as_str(), "c0ffee");
        assert_eq!(request.pod().unwrap().to_string(), "ns/pod");
        assert_eq!(request.pod_uid.unwrap().as_str(), "u");
    }

    #[test]
    fn a_request_that_names_no_pod_says_so() {
        let with = |command, args| read(command, &[ADD[0], ADD[1], ADD[2], ("CNI_ARGS", args)]);
        let request = with(Command::Check, "").unwrap();
        assert_eq!((&request.pod, &request.pod_uid), (&None, &None), "not every runtime passes them");
        assert!(request.pod().unwrap_err().to_string().contains("K8S_POD_NAMESPACE"));
        for (args, part) in [
            ("K8S_POD_NAMESPACE=ns", "pod name \"\" is invalid"),
            ("K8S_POD_NAMESPACE=ns;K8S_POD_NAME=p;K8S_POD_UID=a b", "pod UID \"a b\" is invalid"),
        ] {
            let error = with(Command::Add, args).unwrap_err().to_string();
            assert!(error.contains(part) && error.contains("failed to load CNI ENV args"), "{error}");
            assert_eq!(with(Command::Del, args).unwrap().pod_uid, None, "DEL does not fail");
        }
    }

    #[test]
    fn addresses_may_be_asked_for_by_cni_args() {
        let with = |command, args| read(command, &[ADD[0], ADD[1], ADD[2], ("CNI_ARGS", args)]);
        let request = with(Command::Add, "IP=10.6.0.7/16,fd00::7").unwrap();
        assert_eq!(request.ips, ["10.6.0.7".parse::<IpAddr>().unwrap(), "fd00::7".parse().unwrap()]);
        assert_eq!(with(Command::Add, "IP=").unwrap().ips, Vec::<IpAddr>::new());
        let error = with(Command::Add, "IP=10.6.0").unwrap_err().to_string();
        assert!(error.contains("\"10.6.0\" is not an IP address"), "{error}");
        assert!(with(Command::Del, "IP=10.6.0").is_ok());
    }

    #[test]
    fn status_and_gc_are_about_no_attachment() {
        for command in [Command::Status, Command::Gc] {
            assert_eq!(Request::read(command, |_| None), Ok(None));
        }
    }

    #[test]
    fn missing_variables_are_all_named() {
        let error = read(Command::Add, &[]).unwrap_err().to_string();
        assert_eq!(error, "required env variables [CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME] missing");
        assert!(read(Command::Del, &[ADD[0], ADD[2]]).is_ok(), "DEL needs no CNI_NETNS");
        assert!(read(Command::Check, &[ADD[0], ADD[2]]).is_err());
    }

    #[test]
    fn wrong_variables_are_named() {
        for (name, value) in
            [("CNI_CONTAINERID", "../x"), ("CNI_IFNAME", "a/b"), ("CNI_ARGS", "K8S_POD_NAME")]
        {
            let pairs: Vec<_> = ADD.iter().map(|p| if p.0 == name { (name, value) } else { *p }).collect();
            let error = read(Command::Add, &pairs).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
        assert!(matches!("".parse::<Command>(), Err(EnvError::Missing(_))));
        assert!(matches!("add".parse::<Command>(), Err(EnvError::Command(_))));
    }

    #[test]
    fn unknown_arguments_need_ignore_unknown() {
        let error = CniArgs::parse("K8S_POD_NAME=a;FOO=b").unwrap_err().to_string();
        assert!(error.contains("failed to load CNI ENV args") && error.contains("\"FOO\""), "{error}");
        assert_eq!(CniArgs::parse("FOO=b;IgnoreUnknown=true;K8S_POD_NAME=a").unwrap().name, "a");
        assert!(CniArgs::parse("IgnoreUnknown=maybe").is_err());
        let args = ("CNI_ARGS", "FOO=b;K8S_POD_NAMESPACE=n;K8S_POD_NAME=a");
        let request = read(Command::Del, &[ADD[0], ADD[2], args]).unwrap();
        assert_eq!(request.pod().unwrap().name(), "a", "DEL does not fail");
    }

    proptest! {
        #[test]
        fn never_panics_on_arbitrary_input(text in any::<String>()) {
            let _ = CniArgs::parse(&text);
            let _ = text.parse::<Command>();
            let _ = read(Command::Del, &[("CNI_CONTAINERID", &text), ("CNI_IFNAME", &text), ("CNI_ARGS", &text)]);
        }

        #[test]
        fn values_may_hold_anything_but_separators(name in "[^;]*") {
            let parsed = CniArgs::parse(&format!("K8S_POD_NAME={name}")).unwrap();
            prop_assert_eq!(parsed.name, name);
        }
    }
}
