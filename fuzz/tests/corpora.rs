//! Every input that was ever worth keeping, and random ones.
#![forbid(unsafe_code)]

use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

use proptest::prelude::*;
use spiderpool_fuzz::Target;

#[test]
fn the_corpora_have_no_finding() {
    for target in Target::ALL {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name());
        let files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(files.len() > 5, "{} has hardly a file", folder.display());
        for file in files {
            let bytes = fs::read(&file).unwrap();
            assert!(catch_unwind(|| target.run(&bytes)).is_ok(), "{}", file.display());
        }
    }
}

proptest! {
    #[test]
    fn never_panics_on_arbitrary_input(bytes in prop::collection::vec(any::<u8>(), 0..200), text in ".{0,60}") {
        for target in Target::ALL {
            target.run(&bytes);
            target.run(text.as_bytes());
        }
    }
}
