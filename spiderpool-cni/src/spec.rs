//! The CNI specification's types: versions, results, errors. <https://www.cni.dev/docs/spec/>

mod attachments;
mod result;
mod version;

pub use attachments::valid_attachments;
pub use result::{AddResult, IpEntry, RouteEntry, convert_result, result_addresses};
pub use version::{Version, VersionError, versions_json};

use serde::Serialize;

/// What a failed plugin prints (section 5, "Error").
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ErrorObject {
    /// Of the request.
    pub cni_version: String,
    /// 1 to 99 are the specification's, 100 and above ours.
    pub code: u32,
    /// What failed.
    pub msg: String,
    /// Why, and what to do.
    pub details: String,
}
