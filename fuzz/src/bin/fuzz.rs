//! The fuzzer: a target, by `SPIDERPOOL_FUZZ_TARGET`, under libFuzzer, which has the command line.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use spiderpool_fuzz::Target;

/// Names the target.
const VARIABLE: &str = "SPIDERPOOL_FUZZ_TARGET";

static TARGET: OnceLock<Target> = OnceLock::new();

fuzz_target!(
    init: {
        let name = std::env::var(VARIABLE).unwrap_or_default();
        let target = name.parse().unwrap_or_else(|error| panic!("{VARIABLE}: {error}"));
        let _first = TARGET.set(target);
    },
    |bytes: &[u8]| {
        if let Some(target) = TARGET.get() {
            target.run(bytes);
        }
    }
);
