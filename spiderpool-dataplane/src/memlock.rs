//! Why the kernel does not permit a map or a program. Before Linux 5.11 they count as locked memory, whose limit is low in
//! a container; the kernel's answer is the same as for a missing capability.

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};

use crate::error::LoadError;

/// What `EPERM` means on this kernel, with this limit.
pub(crate) fn not_permitted(what: &'static str) -> LoadError {
    let limit = getrlimit(Resource::RLIMIT_MEMLOCK).map_or(RLIM_INFINITY, |(soft, _)| soft);
    let release = nix::sys::utsname::uname().map(|name| name.release().to_string_lossy().into_owned());
    explain(what, release.unwrap_or_default(), limit)
}

fn explain(what: &'static str, release: String, limit: u64) -> LoadError {
    if limit != RLIM_INFINITY && counts_maps(&release) {
        LoadError::LockedMemory { what, release, limit }
    } else {
        LoadError::NotPermitted { what }
    }
}

fn counts_maps(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse::<u32>().ok());
    matches!((numbers.next(), numbers.next()), (Some(major), Some(minor)) if (major, minor) < (5, 11))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_low_limit_is_named_on_kernels_that_count_maps_against_it() {
        let said = |release: &str, limit| explain("create a map", release.to_owned(), limit).to_string();
        for release in ["5.10.0-28-amd64", "5.4.17", "4.19.90-2107.6.0.0192.8.oe1.x86_64"] {
            let said = said(release, 65_536);
            for word in ["spiderpoolAgent.raiseMemlock=true", "65536 bytes", release] {
                assert!(said.contains(word), "{said}");
            }
        }
        assert!(said("5.10.0", RLIM_INFINITY).contains("capabilities"));
        for release in ["5.11.0", "6.1.0-18-amd64", "10.0", ""] {
            assert!(said(release, 65_536).contains("capabilities"), "{release}");
        }
    }
}
