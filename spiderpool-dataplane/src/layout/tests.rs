use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{Conversion, Layout, Member};

fn int(size: usize) -> Layout {
    Layout::Int { size, is_signed: false }
}

fn signed(size: usize) -> Layout {
    Layout::Int { size, is_signed: true }
}

fn array(of: Layout, len: usize) -> Layout {
    Layout::Array { of: Box::new(of), len }
}

/// Members one behind the other.
fn packed(members: Vec<(&str, Layout)>) -> Layout {
    let mut size = 0;
    let members = members.into_iter().map(|(name, layout)| {
        let at = size;
        size += layout.size();
        Member { name: name.to_owned(), at, layout }
    });
    let members = members.collect();
    Layout::Struct { size, members }
}

fn plan(from: &Layout, to: &Layout) -> Result<Conversion, String> {
    Conversion::plan(from, to, "map.value", &["map.value.late"]).map_err(|error| error.to_string())
}

fn converted(from: &Layout, to: &Layout, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![0xaa; to.size()];
    plan(from, to).unwrap().convert(bytes, &mut out);
    out
}

#[test]
fn members_are_found_by_their_names() {
    let from = packed(vec![("a", int(1)), ("gone", int(2)), ("b", array(int(1), 2)), ("_pad", int(1))]);
    let to =
        packed(vec![("b", array(int(1), 2)), ("late", int(2)), ("a", int(1)), ("_pad", array(int(1), 3))]);
    let plan = plan(&from, &to).unwrap();
    let mut out = [0xaa; 8];
    plan.convert(&[1, 2, 3, 4, 5, 9], &mut out);
    assert_eq!(out, [4, 5, 0, 0, 1, 0, 0, 0]);
    assert!(plan.drops_any(&[1, 2, 3, 4, 5, 9]) && !plan.drops_any(&[1, 0, 0, 4, 5, 9]));
}

#[cfg(target_endian = "little")]
#[test]
fn integers_become_wider_and_stay_what_they_are() {
    assert_eq!(converted(&int(2), &int(4), &[0xfe, 0xff]), [0xfe, 0xff, 0, 0]);
    assert_eq!(converted(&signed(2), &signed(4), &[0xfe, 0xff]), [0xfe, 0xff, 0xff, 0xff]);
    assert_eq!(converted(&signed(2), &signed(4), &[0xfe, 0x7f]), [0xfe, 0x7f, 0, 0]);
    assert_eq!(converted(&array(int(1), 2), &array(int(2), 2), &[7, 8]), [7, 0, 8, 0]);
}

#[test]
fn what_cannot_be_had_is_named() {
    let member = |layout| packed(vec![("m", layout)]);
    let refused = |from, to| plan(&member(from), &member(to)).unwrap_err();
    assert!(refused(int(4), int(2)).starts_with("map.value.m is a narrower integer"));
    assert!(refused(signed(2), int(4)).contains("another sign"));
    assert!(refused(array(int(1), 2), array(int(1), 3)).contains("an array of another length"));
    assert!(refused(int(4), array(int(1), 4)).contains("another type"));
    assert!(refused(Layout::Enum { size: 4 }, int(4)).contains("another type"));
    let union = |name: &str| {
        let members = vec![Member { name: name.to_owned(), at: 0, layout: int(4) }];
        Layout::Union { size: 4, members }
    };
    assert!(refused(union("a"), union("b")).contains("another type"));
    let missing = plan(&member(int(4)), &packed(vec![("n", int(4))])).unwrap_err();
    assert_eq!(missing, "map.value.n is missing in the pinned map");
    assert!(plan(&array(int(1), 5000), &array(int(1), 5000)).unwrap_err().contains("too large"));
}

#[test]
fn equal_layouts_are_copied_whole() {
    let layout = packed(vec![("a", array(int(1), 3)), ("b", packed(vec![("c", int(4))])), ("_pad", int(1))]);
    assert_eq!(plan(&layout, &layout), Ok(Conversion::identity(8)));
    assert!(!Conversion::identity(8).drops_any(&[1; 8]));
}

#[test]
fn members_stay_in_place_if_only_padding_has_another_name() {
    let of =
        |members: [(&'static str, usize); 3]| packed(members.map(|(name, size)| (name, int(size))).into());
    let in_place = |from, to| plan(&of(from), &of(to)).unwrap().is_in_place();
    let from = [("a", 2), ("_pad", 2), ("b", 4)];
    assert!(in_place(from, [("a", 2), ("_gap", 2), ("b", 4)]));
    assert!(in_place(from, [("a", 2), ("late", 2), ("b", 4)]));
    assert!(!in_place([("a", 2), ("late", 2), ("b", 4)], from));
    assert!(!in_place(from, [("_pad", 2), ("a", 2), ("b", 4)]));
    assert!(!in_place(from, [("a", 4), ("_pad", 0), ("b", 4)]));
}

/// What a layout has, without looking at how it nests: each integer and each length by its path.
fn leaves(layout: &Layout, at: usize, path: &str, out: &mut BTreeMap<String, Leaf>) {
    match layout {
        &Layout::Int { size, is_signed } => {
            out.insert(path.to_owned(), Leaf::Int { at, size, is_signed });
        }
        Layout::Array { of, len } => {
            out.insert(format!("{path}#"), Leaf::Len(*len));
            for index in 0..*len {
                leaves(of, at + index * of.size(), &format!("{path}[{index}]"), out);
            }
        }
        Layout::Struct { members, .. } => {
            for member in members.iter().filter(|member| member.name != "_pad") {
                leaves(&member.layout, at + member.at, &format!("{path}.{}", member.name), out);
            }
        }
        Layout::Enum { .. } | Layout::Union { .. } => unreachable!(),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaf {
    Int { at: usize, size: usize, is_signed: bool },
    Len(usize),
}

fn all_leaves(layout: &Layout) -> BTreeMap<String, Leaf> {
    let mut out = BTreeMap::new();
    leaves(layout, 0, "map.value", &mut out);
    out
}

/// The number that an integer is; the machines that tests run on are little-endian.
fn number(bytes: &[u8], is_signed: bool) -> i128 {
    let number = bytes.iter().rev().fold(0_i128, |sum, byte| sum << 8 | i128::from(*byte));
    let sign = 1_i128 << (bytes.len() * 8 - 1);
    if is_signed && number & sign != 0 { number - 2 * sign } else { number }
}

/// The new bytes, and whether something is left out; `None` where something cannot be had.
fn by_leaves(from: &Layout, to: &Layout, bytes: &[u8]) -> Option<(Vec<u8>, bool)> {
    let (have, want) = (all_leaves(from), all_leaves(to));
    let mut out = vec![0; to.size()];
    for (path, leaf) in &want {
        match (have.get(path), *leaf) {
            (Some(&Leaf::Int { at: old, size: len, is_signed: was }), Leaf::Int { at, size, is_signed }) => {
                if len > size || len < size && was != is_signed {
                    return None;
                }
                let number = number(&bytes[old..old + len], was);
                out[at..at + size].copy_from_slice(&number.to_le_bytes()[..size]);
            }
            (have, want) if have == Some(&want) => {}
            (None, _) if path.starts_with("map.value.late") && !has(from, "late") => {}
            _ => return None,
        }
    }
    let left_out = have.iter().any(|(path, leaf)| match *leaf {
        Leaf::Int { at, size, .. } => !want.contains_key(path) && bytes[at..at + size] != vec![0; size],
        Leaf::Len(_) => false,
    });
    Some((out, left_out))
}

fn has(layout: &Layout, name: &str) -> bool {
    matches!(layout, Layout::Struct { members, .. } if members.iter().any(|member| member.name == name))
}

fn any_int() -> impl Strategy<Value = Layout> {
    (prop::sample::select(vec![1, 2, 4, 8]), prop::bool::weighted(0.1))
        .prop_map(|(size, is_signed)| Layout::Int { size, is_signed })
}

/// Few kinds and lengths, so that two often fit.
fn any_member() -> impl Strategy<Value = Layout> {
    let small = prop_oneof![any_int(), (any_int(), 1..3_usize).prop_map(|(of, len)| array(of, len))];
    let inner = (small.clone(), small.clone(), any::<bool>()).prop_map(|(x, y, turned)| {
        packed(if turned { vec![("y", y), ("x", x)] } else { vec![("x", x), ("y", y)] })
    });
    prop_oneof![4 => small, 1 => inner.clone(), 1 => (inner, 1..3_usize).prop_map(|(of, len)| array(of, len))]
}

fn any_struct() -> impl Strategy<Value = Layout> {
    let members = proptest::sample::subsequence(vec!["a", "b", "late"], 0..=3).prop_shuffle();
    (members, [any_member(), any_member(), any_member()], 0..4_usize).prop_map(|(names, layouts, pad)| {
        let mut members: Vec<_> = names.into_iter().zip(layouts).collect();
        members.insert(members.len() / 2, ("_pad", array(int(1), pad)));
        packed(members)
    })
}

/// With integers of 8 bytes.
fn widened(layout: &Layout) -> Layout {
    match layout {
        &Layout::Int { is_signed, .. } => Layout::Int { size: 8, is_signed },
        Layout::Array { of, len } => array(widened(of), *len),
        Layout::Struct { members, .. } => {
            packed(members.iter().map(|m| (m.name.as_str(), widened(&m.layout))).collect())
        }
        Layout::Enum { .. } | Layout::Union { .. } => unreachable!(),
    }
}

/// One layout, and it changed a little, or another one.
fn two_structs() -> impl Strategy<Value = (Layout, Layout)> {
    let changed = (any_struct(), any::<[bool; 3]>()).prop_map(|(from, [turned, shorter, wider])| {
        let Layout::Struct { members, .. } = &from else { unreachable!() };
        let mut members: Vec<_> = members.iter().map(|m| (m.name.as_str(), m.layout.clone())).collect();
        if turned {
            members.reverse();
        }
        if shorter {
            members.pop();
        }
        if wider {
            for (_, layout) in &mut members {
                *layout = widened(layout);
            }
        }
        let to = packed(members);
        (from, to)
    });
    prop_oneof![3 => changed, 1 => (any_struct(), any_struct())]
}

proptest! {
    #[test]
    fn a_conversion_is_what_it_is_integer_by_integer(
        (from, to) in two_structs(),
        seed in proptest::collection::vec(prop_oneof![1 => Just(0), 2 => any::<u8>()], 200),
    ) {
        let mut bytes: Vec<u8> = seed.into_iter().cycle().take(from.size()).collect();
        if let Layout::Struct { members, .. } = &from {
            for member in members.iter().filter(|member| member.name == "_pad") {
                bytes[member.at..member.at + member.layout.size()].fill(0);
            }
        }
        let planned = plan(&from, &to).ok().map(|plan| {
            let mut out = vec![0xaa; to.size()];
            plan.convert(&bytes, &mut out);
            (out, plan.drops_any(&bytes))
        });
        prop_assert_eq!(planned, by_leaves(&from, &to, &bytes));
    }

    /// An upgrade that adds what may be missing and widens nothing, and its rollback.
    #[test]
    fn there_and_back_nothing_has_changed(from in any_struct(), late in any_int(), seed in any::<[u8; 32]>()) {
        let Layout::Struct { members, .. } = &from else { unreachable!() };
        prop_assume!(!has(&from, "late"));
        let mut members: Vec<_> = members.iter().map(|m| (m.name.as_str(), m.layout.clone())).collect();
        members.insert(0, ("late", late));
        members.retain(|(name, _)| *name != "_pad");
        let to = packed(members);
        let mut bytes: Vec<u8> = seed.into_iter().cycle().take(from.size()).collect();
        if let Layout::Struct { members, .. } = &from {
            for member in members.iter().filter(|member| member.name == "_pad") {
                bytes[member.at..member.at + member.layout.size()].fill(0);
            }
        }
        let there = converted(&from, &to, &bytes);
        prop_assert_eq!(converted(&to, &from, &there), bytes);
    }
}
