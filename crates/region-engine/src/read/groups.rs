//! Which sources of a read must be merged with each other: a pure choice by key range.

/// Groups of sources whose key ranges (both ends inclusive) overlap, directly or through others, in
/// key order. Every source is in exactly one group; within a group they stand in the given order.
pub(crate) fn overlapping<K: AsRef<[u8]>>(bounds: &[(K, K)]) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..bounds.len()).collect();
    order.sort_by(|a, b| bounds[*a].0.as_ref().cmp(bounds[*b].0.as_ref()).then(a.cmp(b)));
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut reach: Option<&[u8]> = None;
    for index in order {
        let (low, high) = (bounds[index].0.as_ref(), bounds[index].1.as_ref());
        match (groups.last_mut(), reach) {
            (Some(group), Some(end)) if low <= end => {
                group.push(index);
                reach = Some(end.max(high));
            }
            _ => {
                groups.push(vec![index]);
                reach = Some(high);
            }
        }
    }
    for group in &mut groups {
        group.sort_unstable();
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_grouped_by_overlap() {
        type Case = (&'static [(&'static str, &'static str)], &'static [&'static [usize]]);
        let cases: &[Case] = &[
            (&[], &[]),
            (&[("a", "c")], &[&[0]]),
            // ---  ---
            (&[("a", "c"), ("d", "f")], &[&[0], &[1]]),
            // Touching in one key: both hold it.
            (&[("a", "c"), ("c", "f")], &[&[0, 1]]),
            // Listed out of order.
            (&[("d", "f"), ("a", "c")], &[&[1], &[0]]),
            // The first reaches over the second to the third.
            (&[("a", "z"), ("b", "c"), ("x", "zz"), ("zzz", "zzz")], &[&[0, 1, 2], &[3]]),
            // A chain.
            (&[("e", "g"), ("c", "e"), ("a", "c"), ("h", "h")], &[&[0, 1, 2], &[3]]),
        ];
        for (bounds, expected) in cases {
            assert_eq!(overlapping(bounds), *expected, "{bounds:?}");
        }
    }
}
