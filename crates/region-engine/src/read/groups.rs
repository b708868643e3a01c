//! Which sources of a read must be merged with each other, and which of these can follow one another
//! as one: pure choices by key range.

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

/// The members of a group as chains in which each begins after the one before has ended, as few as
/// may be: who merges then has one source open per chain.
pub(crate) fn chains<K: AsRef<[u8]>>(bounds: &[(K, K)], group: &[usize]) -> Vec<Vec<usize>> {
    let mut order = group.to_vec();
    order.sort_by(|a, b| bounds[*a].0.as_ref().cmp(bounds[*b].0.as_ref()).then(a.cmp(b)));
    let mut chains: Vec<Vec<usize>> = Vec::new();
    for index in order {
        let begins = bounds[index].0.as_ref();
        let free = chains
            .iter_mut()
            .find(|chain| chain.last().is_none_or(|last| bounds[*last].1.as_ref() < begins));
        match free {
            Some(chain) => chain.push(index),
            None => chains.push(vec![index]),
        }
    }
    chains
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_follow_each_other_where_they_can() {
        type Case = (&'static [(&'static str, &'static str)], &'static [&'static [usize]]);
        let cases: &[Case] = &[
            (&[], &[]),
            (&[("a", "c"), ("b", "d")], &[&[0], &[1]]),
            // Two flushes that were cut at different places.
            (&[("a", "c"), ("d", "f"), ("a", "d"), ("e", "g")], &[&[0, 1], &[2, 3]]),
            // Touching in one key: both hold it.
            (&[("a", "c"), ("c", "f"), ("b", "b")], &[&[0], &[2, 1]]),
            (&[("g", "h"), ("a", "z"), ("b", "c"), ("d", "e")], &[&[1], &[2, 3, 0]]),
        ];
        for (bounds, expected) in cases {
            let group: Vec<usize> = (0..bounds.len()).collect();
            assert_eq!(chains(bounds, &group), *expected, "{bounds:?}");
        }
    }

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
