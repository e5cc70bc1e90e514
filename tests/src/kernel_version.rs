//! The version of the kernel that tests run on.

use std::fs;

use anyhow::{Result, bail};

/// Major and minor.
pub fn read() -> Result<(u32, u32)> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut numbers = release.split(['.', '-']).map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        bail!("no version: Linux {release}")
    };
    Ok((major, minor))
}
