//! The order in which objects count.

use kube::core::ObjectMeta;

/// The oldest comes first; of two of one age, the first by name.
pub(super) fn sort_by_age<T>(objects: &mut [T], meta: impl Fn(&T) -> &ObjectMeta) {
    objects.sort_by_cached_key(|object| {
        let meta = meta(object);
        (meta.creation_timestamp.as_ref().map(|at| at.0), meta.name.clone())
    });
}
