use proptest::prelude::*;

use super::{Btf, Unreadable};
use crate::layout::{Layout, Member};

#[path = "../../tests/support/btf.rs"]
pub(crate) mod blob;

fn member(name: &str, at: usize, layout: Layout) -> Member {
    Member { name: name.to_owned(), at, layout }
}

/// 1: u32; 3: [u32; 2]; 4: a struct of both; 5: its typedef.
fn sample() -> Vec<u8> {
    let mut btf = blob::Btf::new();
    let int = btf.int(4, false);
    let array = btf.array(int, 2);
    let pair = btf.structure(12, &[("a", int, 0), ("b", array, 4)]);
    btf.typedef(pair);
    btf.bytes()
}

fn layout(blob: &[u8], id: u32) -> Result<Layout, Unreadable> {
    Btf::parse(blob)?.layout(id)
}

#[test]
fn layouts_have_members_and_offsets() {
    let int = Layout::Int { size: 4, is_signed: false };
    let array = Layout::Array { of: Box::new(int.clone()), len: 2 };
    let members = vec![member("a", 0, int), member("b", 4, array)];
    let want = Layout::Struct { size: 12, members };
    assert_eq!(layout(&sample(), 4), Ok(want.clone()));
    assert_eq!(layout(&sample(), 5), Ok(want), "a typedef is seen through");
}

#[test]
fn truncated_blobs_are_refused() {
    let blob = sample();
    for len in 0..blob.len() {
        assert_eq!(Btf::parse(&blob[..len]).map(|_| ()), Err(Unreadable), "{len} bytes");
    }
    for id in [0, 9, u32::MAX] {
        assert_eq!(layout(&blob, id), Err(Unreadable));
    }
}

/// What the kernel would refuse as well, and what it would not but no map of ours has.
#[test]
fn odd_types_are_refused() {
    let of = |make: fn(&mut blob::Btf) -> u32| {
        let mut btf = blob::Btf::new();
        let id = make(&mut btf);
        layout(&btf.bytes(), id)
    };
    let refused = [
        of(|btf| {
            let int = btf.int(4, false);
            btf.structure(4, &[("beyond", int, 1)])
        }),
        // One that has itself as a member.
        of(|btf| btf.structure(4, &[("itself", 1, 0)])),
        of(|btf| btf.typedef(1)),
        // Without end for whoever would list it: 2^32 to the power of 12.
        of(|btf| (0..12).fold(btf.int(4, false), |of, _| btf.array(of, u32::MAX))),
        // 16^8 members.
        of(|btf| {
            let empty = btf.structure(0, &[]);
            (0..8).fold(empty, |of, _| btf.structure(0, &[("m", of, 0); 16]))
        }),
    ];
    for layout in refused {
        assert_eq!(layout, Err(Unreadable));
    }
}

proptest! {
    #[test]
    fn never_panics_on_arbitrary_input(blob in proptest::collection::vec(any::<u8>(), 0..200), id in 0..8u32) {
        let _ = layout(&blob, id);
    }

    #[test]
    fn never_panics_on_a_changed_blob(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        id in 0..8u32,
    ) {
        let mut blob = sample();
        for (at, byte) in changes {
            let at = at.index(blob.len());
            blob[at] = byte;
        }
        if let Ok(layout) = layout(&blob, id) {
            let _ = crate::layout::Conversion::plan(&layout, &layout, "", &[]);
        }
    }
}
