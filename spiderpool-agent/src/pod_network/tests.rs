use super::*;

#[test]
fn a_state_file_that_is_missing_or_no_inventory_is_a_lost_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = state_path(folder.path());
    let inventory = || PodNetworks::new(path.clone()).inventory().unwrap().clone();
    assert_eq!(inventory(), Inventory::lost());
    std::fs::write(&path, "{").unwrap();
    assert_eq!(inventory(), Inventory::lost());
    state_file::write(&path, &Inventory::default()).unwrap();
    assert_eq!(inventory(), Inventory::default());
}
