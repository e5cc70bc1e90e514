//! Covering arrays: few rows in which nevertheless every two values of different dimensions meet.
//!
//! Greedy, as in AETG (Cohen and others, 1997), but without chance: the same dimensions give the same rows.

use std::collections::BTreeSet;

/// A value of a dimension: both by number.
type Choice = (usize, usize);

/// Rows with one value per dimension, so that each pair of values that may meet is in one of them.
///
/// `levels` has the number of values of each dimension. `may_be` is asked about rows in the making too, where a
/// dimension without a value yet is `None`: it must not refuse what a further value could make good.
pub(super) fn pairwise(levels: &[usize], may_be: impl Fn(&[Option<usize>]) -> bool) -> Vec<Vec<usize>> {
    let mut missing = pairs(levels, &may_be);
    let mut rows = Vec::new();
    while let Some(&seed) = missing.iter().next() {
        match row(levels, seed, &missing, &may_be) {
            Some(row) => {
                missing.retain(|(a, b)| row[a.0] != a.1 || row[b.0] != b.1);
                rows.push(row);
            }
            // The two may meet, but nothing completes them.
            None => {
                missing.remove(&seed);
            }
        }
    }
    rows
}

/// Every row that may be.
pub(super) fn all(levels: &[usize], may_be: impl Fn(&[Option<usize>]) -> bool) -> Vec<Vec<usize>> {
    let mut rows = vec![Vec::new()];
    for &count in levels {
        let longer = |row: &Vec<usize>| (0..count).map(|value| [row.as_slice(), &[value]].concat()).collect();
        rows = rows.iter().flat_map::<Vec<_>, _>(longer).collect();
    }
    rows.retain(|row| may_be(&row.iter().copied().map(Some).collect::<Vec<_>>()));
    rows
}

/// The pairs of values of different dimensions that may meet.
fn pairs(levels: &[usize], may_be: impl Fn(&[Option<usize>]) -> bool) -> BTreeSet<(Choice, Choice)> {
    let choices = |dimension: usize| (0..levels[dimension]).map(move |value| (dimension, value));
    let all = (0..levels.len()).flat_map(choices);
    let pairs = all.flat_map(|a| (a.0 + 1..levels.len()).flat_map(choices).map(move |b| (a, b)));
    pairs
        .filter(|(a, b)| {
            let mut row = vec![None; levels.len()];
            (row[a.0], row[b.0]) = (Some(a.1), Some(b.1));
            may_be(&row)
        })
        .collect()
}

/// A row with the pair `seed`, and of the other dimensions the values that make most of the missing pairs.
fn row(
    levels: &[usize],
    (a, b): (Choice, Choice),
    missing: &BTreeSet<(Choice, Choice)>,
    may_be: impl Fn(&[Option<usize>]) -> bool,
) -> Option<Vec<usize>> {
    let mut row = vec![None; levels.len()];
    (row[a.0], row[b.0]) = (Some(a.1), Some(b.1));
    let mut open: Vec<usize> = (0..levels.len()).filter(|dimension| row[*dimension].is_none()).collect();
    // Those with most values first: what is left then fits in more easily.
    open.sort_by_key(|dimension| std::cmp::Reverse(levels[*dimension]));
    for dimension in open {
        let gain = |value: usize| {
            let is_new = |other: usize| {
                let Some(choice) = row[other] else { return false };
                let (low, high) =
                    ((dimension, value).min((other, choice)), (dimension, value).max((other, choice)));
                missing.contains(&(low, high))
            };
            (0..levels.len()).filter(|other| is_new(*other)).count()
        };
        let fits = |value: &usize| {
            let mut longer = row.clone();
            longer[dimension] = Some(*value);
            may_be(&longer)
        };
        let best =
            (0..levels[dimension]).filter(fits).max_by_key(|value| (gain(*value), std::cmp::Reverse(*value)));
        row[dimension] = Some(best?);
    }
    row.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The second value of the first dimension excludes the second of the last.
    fn may_be(row: &[Option<usize>]) -> bool {
        !(row.first() == Some(&Some(1)) && row.last() == Some(&Some(1)))
    }

    fn meet(row: &[usize], a: Choice, b: Choice) -> bool {
        row[a.0] == a.1 && row[b.0] == b.1
    }

    /// Every pair that occurs in some allowed row, found by going through all rows, is in one of the chosen.
    #[track_caller]
    fn check(levels: &[usize], at_most: usize) {
        let (chosen, every) = (pairwise(levels, may_be), all(levels, may_be));
        assert!(chosen.len() <= at_most, "{levels:?}: {} rows", chosen.len());
        assert!(chosen.iter().all(|row| every.contains(row)), "{levels:?}: a row that must not be");
        for row in &every {
            for a in row.iter().copied().enumerate() {
                for b in row.iter().copied().enumerate() {
                    assert!(chosen.iter().any(|row| meet(row, a, b)), "{levels:?}: {a:?} never meets {b:?}");
                }
            }
        }
        assert_eq!(chosen, pairwise(levels, may_be), "the same every time");
    }

    #[test]
    fn every_pair_that_may_meet_does() {
        check(&[2, 2, 2], 6);
        check(&[3, 3, 3, 3], 14);
        check(&[5, 3, 2, 2, 2, 2], 18);
        check(&[1, 1, 3, 2, 2, 5, 2, 2], 18);
        check(&[4, 4, 4, 4, 4, 4], 30);
    }

    #[test]
    fn one_dimension_alone_has_no_pairs() {
        assert_eq!(pairwise(&[3], |_| true), Vec::<Vec<usize>>::new());
        assert_eq!(all(&[2], |_| true), [[0], [1]]);
    }

    #[test]
    fn all_rows_are_the_product_without_what_must_not_be() {
        assert_eq!(all(&[2, 3, 2], may_be).len(), 12 - 3);
    }
}
