//! Leave-one-out classification: each digit is named by its nearest neighbours, itself left out.

use std::collections::BTreeMap;

/// A neighbour: its point id, its distance, and what it shows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Neighbour {
    /// Point id.
    pub id: u64,
    /// The score of the search, a distance: smaller is nearer.
    pub distance: f32,
    /// The digit.
    pub label: u8,
}

/// The `k` nearest of `found`, those equally far in order of id.
///
/// Where several points are equally far, an engine may answer any of them first; sorting a few
/// more than `k` makes two answers comparable.
pub fn nearest(mut found: Vec<Neighbour>, k: usize) -> Vec<Neighbour> {
    found.sort_by(|a, b| a.distance.total_cmp(&b.distance).then(a.id.cmp(&b.id)));
    found.truncate(k);
    found
}

/// The label that most neighbours have; of several, the one whose nearest neighbour is nearest.
/// None without neighbours.
pub fn vote(neighbours: &[Neighbour]) -> Option<u8> {
    // Votes, and the rank of the label's nearest neighbour.
    let mut labels: BTreeMap<u8, (usize, usize)> = BTreeMap::new();
    for (rank, neighbour) in neighbours.iter().enumerate() {
        labels.entry(neighbour.label).or_insert((0, rank)).0 += 1;
    }
    labels
        .into_iter()
        .max_by_key(|&(_, (votes, rank))| (votes, std::cmp::Reverse(rank)))
        .map(|(label, _)| label)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn neighbour(id: u64, distance: f32, label: u8) -> Neighbour {
        Neighbour {
            id,
            distance,
            label,
        }
    }

    #[test]
    fn ties_are_broken_by_id_whatever_the_order_of_the_answer() {
        let a = neighbour(4, 1.0, 1);
        let b = neighbour(7, 1.0, 2);
        let c = neighbour(1, 2.0, 3);
        assert_eq!(nearest(vec![c, b, a], 2), [a, b]);
        assert_eq!(nearest(vec![a, b, c], 2), [a, b]);
    }

    #[test]
    fn the_majority_wins_and_the_nearest_breaks_a_tie() {
        let named = |labels: &[u8]| {
            let neighbours: Vec<_> = labels
                .iter()
                .zip(0_u64..)
                .map(|(&label, id)| neighbour(id, id as f32, label))
                .collect();
            vote(&neighbours)
        };
        assert_eq!(named(&[3, 8, 8]), Some(8));
        assert_eq!(named(&[8, 3, 3, 8]), Some(8));
        assert_eq!(named(&[3, 8, 8, 3]), Some(3));
        assert_eq!(named(&[]), None);
    }
}
