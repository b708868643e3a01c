//! Grouping of a read's sources by key range (pure): which must be merged with each other, and
//! which of those can be read one after the other as a single source.

/// Groups sources whose key ranges (both ends inclusive) overlap, directly or through others.
/// Groups are in key order. Every source is in exactly one group, and sources keep the given order
/// within it.
pub(crate) fn overlapping<K: AsRef<[u8]>>(bounds: &[(K, K)]) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..bounds.len()).collect();
    order.sort_by(|a, b| bounds[*a].0.as_ref().cmp(bounds[*b].0.as_ref()).then(a.cmp(b)));
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut reach: Option<&[u8]> = None;
    for index in order {
        let low = bounds[index].0.as_ref();
        let high = bounds[index].1.as_ref();
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

/// Splits a group into the fewest chains in which each source begins after the previous one has
/// ended. A merge then has one source open per chain.
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
    fn sources_without_overlap_form_a_chain() {
        type Case = (&'static [(&'static str, &'static str)], &'static [&'static [usize]]);
        let cases: &[Case] = &[
            (&[], &[]),
            (&[("a", "c"), ("b", "d")], &[&[0], &[1]]),
            // Two flushes that were split at different keys.
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
