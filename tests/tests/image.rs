//! The images that `cargo xtask image` writes: small, reproducible, and with programs that run in an empty root.
#![forbid(unsafe_code)]

use std::fs;
use std::path::Path;
use std::process::Command;

use spiderpool_tests::{images, long_form, privilege, process, tools};

/// Multus alone has almost 50 MiB.
const LIMIT: u64 = 60 << 20;

/// What is in the images of ours.
const PROGRAMS: [&str; 6] =
    ["spiderpool-agent", "spiderpool-controller", "spiderpool-init", "spiderpool", "coordinator", "ifacer"];

/// The command with what makes the program answer and end.
fn as_asked<'a>(command: &'a mut Command, program: &str) -> &'a Command {
    if program.starts_with("spiderpool-") {
        command.arg("--help")
    } else {
        command.env("CNI_COMMAND", "VERSION")
    }
}

#[test]
fn twice_the_same_and_small() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (first, second) =
        (images::write(one.path(), "v1").unwrap(), images::write(two.path(), "v1").unwrap());
    assert_eq!(first.len(), images::NAMES.len());
    for (first, second) in first.iter().zip(&second) {
        assert_eq!((&first.name, &first.digest), (&second.name, &second.digest));
        assert_eq!(fs::read(&first.path).unwrap(), fs::read(&second.path).unwrap(), "{}", first.name);
        let size = fs::metadata(&first.path).unwrap().len();
        assert!(size < LIMIT, "{} has {size} bytes", first.name);
    }
}

/// Nobody's folders are shipped, and programs do not differ for their sake.
#[test]
fn no_program_knows_where_it_was_built() {
    let home = std::env::var("HOME").unwrap();
    let root = tools::chart().unwrap().join("../..").canonicalize().unwrap();
    let places = [home.as_str(), root.to_str().unwrap(), "/registry/src/"].map(str::as_bytes);
    let programs = PROGRAMS.map(|program| tools::spiderpool(program).unwrap());
    for path in programs.into_iter().chain([tools::bpf_object().unwrap()]) {
        let bytes = fs::read(&path).unwrap();
        for place in places.iter().filter(|place| place.len() > 1) {
            let found = bytes.windows(place.len()).position(|window| window == *place);
            let around = found.map(|at| String::from_utf8_lossy(&bytes[at..(at + 80).min(bytes.len())]));
            assert_eq!(around, None, "{}", path.display());
        }
    }
}

/// Those of the other architecture, under qemu: that they start, not that the kernel there takes what they ask for.
#[test]
fn programs_for_the_other_architecture_start() {
    if !long_form::asked_for_or_skip("programs_for_the_other_architecture_start") {
        return;
    }
    let variable = |name| std::env::var(name).unwrap_or_else(|error| panic!("{name}: {error}"));
    let (folder, emulator) = (variable("SPIDERPOOL_OTHER_BIN"), variable("SPIDERPOOL_EMULATOR"));
    for program in PROGRAMS {
        let mut command = Command::new(&emulator);
        command.arg(Path::new(&folder).join(program));
        assert!(!process::output(as_asked(&mut command, program)).unwrap().is_empty(), "{program}");
    }
}

/// No loader, no library, no /proc: as a container from scratch.
#[test]
fn programs_run_in_an_empty_root() {
    if !privilege::root_or_skip("programs_run_in_an_empty_root") {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    for program in PROGRAMS {
        fs::copy(tools::spiderpool(program).unwrap(), root.path().join(program)).unwrap();
        let mut chroot = Command::new("chroot");
        chroot.arg(root.path()).arg(format!("/{program}"));
        let output = process::output(as_asked(&mut chroot, program)).unwrap();
        assert!(!output.is_empty(), "{program}");
    }
}
