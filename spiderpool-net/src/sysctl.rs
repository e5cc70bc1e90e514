//! Kernel parameters below /proc/sys/net, of the calling thread's namespace: call this inside [`NetNs::run`].
//!
//! Keys are paths (`net/ipv4/conf/eth0.100/rp_filter`), because a device's name may hold dots.
//!
//! [`NetNs::run`]: crate::netns::NetNs::run

use std::fs;
use std::io::{self, ErrorKind};

use thiserror::Error;

/// A kernel parameter cannot be read or written.
#[derive(Debug, Error)]
pub enum SysctlError {
    /// The kernel has no such parameter: the device is gone, or IPv6 is not built in.
    #[error("kernel parameter {key} does not exist")]
    Missing {
        /// The parameter.
        key: String,
    },
    /// The value is refused, or /proc/sys is read-only.
    #[error("kernel parameter {key}: {operation}: {source}")]
    Io {
        /// The parameter.
        key: String,
        /// `read` or `write VALUE`.
        operation: String,
        /// Why.
        source: io::Error,
    },
}

/// Reads a parameter, without the newline.
pub fn read(key: &str) -> Result<String, SysctlError> {
    let value = fs::read_to_string(path(key)).map_err(|e| error(key, "read".to_owned(), e))?;
    Ok(value.trim_end().to_owned())
}

/// Writes a parameter and returns what it was before.
pub fn write(key: &str, value: &str) -> Result<String, SysctlError> {
    let before = read(key)?;
    if before != value {
        fs::write(path(key), value).map_err(|e| error(key, format!("write {value}"), e))?;
    }
    Ok(before)
}

fn path(key: &str) -> String {
    format!("/proc/sys/{key}")
}

fn error(key: &str, operation: String, source: io::Error) -> SysctlError {
    let key = key.to_owned();
    match source.kind() {
        ErrorKind::NotFound => SysctlError::Missing { key },
        _ => SysctlError::Io { key, operation, source },
    }
}
