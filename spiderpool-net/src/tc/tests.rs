use super::*;

#[test]
fn another_agents_filter_is_not_ours_for_the_name_of_its_direction() {
    let filter = |name: &str, handle, classid, program| Filter {
        priority: 1,
        handle,
        classid,
        name: name.to_owned(),
        program,
    };
    for (found, ours, on_seven) in [
        (filter("spiderpool-egress", 1, 7, 40), true, true),
        // Of a NIC's earlier registration.
        (filter("spiderpool-egress", 1, 6, 40), true, true),
        // Ours before it had that name, and somebody else's.
        (filter("egress", 1, 7, 40), false, true),
        (filter("egress", 1, 6, 40), false, false),
        (filter("egress", 1, 0, 40), false, false),
        (filter("spiderpool-ingress", 1, 7, 40), false, false),
        (filter("spiderpool-egress", 2, 7, 40), false, false),
        (filter("spiderpool-egress", 1, 7, 0), false, false),
    ] {
        let is = (found.is_ours(Direction::Egress), found.is_ours_on(Direction::Egress, 7));
        assert_eq!(is, (ours, on_seven), "{found:?}");
    }
}
