//! What can be wrong with a pool's spec.

use std::net::IpAddr;

use ipnet::IpNet;
use thiserror::Error;

use crate::error_list::ErrorList;
use crate::ip::{Family, IpRange, IpRangeError};
use crate::ipam::route::RouteError;
use crate::label_selector::SelectorProblem;
use crate::names::NameError;

/// Why a pool cannot be used: everything that is wrong with its spec.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("IPPool {pool} is invalid: {}", ErrorList(.faults))]
pub struct PoolError {
    /// The pool.
    pub pool: String,
    /// `spec.default`.
    pub default: bool,
    /// The family of its addresses, where the spec says so much.
    pub family: Option<Family>,
    /// At least one, in the order of the fields.
    pub faults: Vec<PoolFault>,
}

impl PoolError {
    /// The object of a pool does not have the types of its CRD.
    pub fn undecodable(pool: &str, cause: &str) -> Self {
        let problem = PoolProblem::Undecodable(cause.to_owned());
        let faults = vec![PoolFault { path: "spec".to_owned(), problem }];
        Self { pool: pool.to_owned(), default: false, family: None, faults }
    }
}

/// What is wrong with one field of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{path}: {problem}")]
pub struct PoolFault {
    /// The field's path, `spec.ips[2]`.
    pub path: String,
    /// What is wrong with it.
    pub problem: PoolProblem,
}

/// What can be wrong with a field of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PoolProblem {
    /// The object does not have the types of its CRD.
    #[error("does not fit the CRD of SpiderIPPool, correct or delete the pool: {0}")]
    Undecodable(String),
    /// Not a pool's name.
    #[error(transparent)]
    Name(NameError),
    /// The subnet does not parse.
    #[error("{0:?} is not a network in CIDR form")]
    Subnet(String),
    /// The subnet has host bits.
    #[error("unformatted subnet {found}, please change it to {network}")]
    HostBits {
        /// As written.
        found: IpNet,
        /// As it should be.
        network: IpNet,
    },
    /// `ipVersion` is not the subnet's.
    #[error("{found} is not the version of spec.subnet {subnet}, which is {family}")]
    Version {
        /// As written.
        found: i64,
        /// The subnet.
        subnet: IpNet,
        /// Its family.
        family: Family,
    },
    /// A range does not parse.
    #[error(transparent)]
    Range(IpRangeError),
    /// A range reaches out of the subnet.
    #[error("{range} is not inside of spec.subnet {subnet}")]
    Outside {
        /// The range.
        range: IpRange,
        /// The subnet.
        subnet: IpNet,
    },
    /// The gateway is not an address.
    #[error("{0:?} is not an address")]
    Gateway(String),
    /// The gateway is not an address of the subnet.
    #[error("{gateway} is not an address of spec.subnet {subnet}")]
    GatewayOutside {
        /// As written.
        gateway: IpAddr,
        /// The subnet.
        subnet: IpNet,
    },
    /// The gateway could be handed out.
    #[error("{0} is one of spec.ips: add it to spec.excludeIPs")]
    GatewayUsable(IpAddr),
    /// A route does not parse.
    #[error(transparent)]
    Route(RouteError),
    /// A field of an affinity.
    #[error(transparent)]
    Affinity(SelectorProblem),
}
