//! What is written and searched for: the same for the same seed, whoever asks.

use std::fmt;

use clap::ValueEnum;
use edge_sync_fixtures::digits;
use fastrand::Rng;
use serde_json::json;

use crate::contestants::Record;

/// Kinds of vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Dataset {
    /// Every coordinate by itself: the worst case of an index, since all points are about as far
    /// from each other.
    Random,
    /// As embeddings are: crowds of different sizes in a space of far fewer dimensions, and a little
    /// of everything beside.
    Clusters,
    /// Handwritten digits, 1,797 real vectors of 64 dimensions.
    Digits,
}

impl fmt::Display for Dataset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Random => "random vectors",
            Self::Clusters => "vectors in clusters",
            Self::Digits => "handwritten digits",
        })
    }
}

/// Dimensions of the space that clusters are in.
const LATENT: usize = 24;

/// How many clusters there are.
const CLUSTERS: usize = 64;

/// How far a cluster's points are from its middle, where middles are 1 from the origin in each
/// dimension.
const SPREAD: f32 = 0.5;

/// What is added in each of all dimensions, where the rest is about 1.
const NOISE: f32 = 0.1;

/// Digits that are searched for, and not written.
const SEARCHED_DIGITS: usize = 297;

const COLORS: [&str; 4] = ["red", "green", "blue", "grey"];

/// Points and queries.
#[derive(Debug, Clone)]
pub struct Data {
    /// What is written.
    pub records: Vec<Record>,
    /// What is searched for: of the same kind, and none of what is written.
    pub queries: Vec<Vec<f32>>,
}

impl Data {
    /// So many points and queries; digits as many as there are, at most.
    pub fn make(
        kind: Dataset,
        points: usize,
        dimensions: usize,
        queries: usize,
        seed: u64,
    ) -> Self {
        let mut source = Source::new(kind, dimensions, seed);
        let records = source.records(0..points as u64);
        // What is left of the digits.
        if let Source::Digits(left) = &mut source {
            left.clone_from(&digit_vectors().1);
        }
        let queries = std::iter::from_fn(|| source.vector())
            .take(queries)
            .collect();
        Self { records, queries }
    }

    /// Dimensions of the vectors.
    pub fn dimensions(&self) -> usize {
        self.records.first().map_or(1, |record| record.vector.len())
    }
}

/// Makes vectors, one after the other.
#[derive(Debug)]
pub enum Source {
    /// [`Dataset::Random`].
    Random(Rng, usize),
    /// [`Dataset::Clusters`].
    Clusters(Rng, Box<Space>),
    /// [`Dataset::Digits`]: those that are left, the next one last.
    Digits(Vec<Vec<f32>>),
}

/// Where clusters are.
#[derive(Debug)]
pub struct Space {
    /// One for each latent dimension, of all dimensions.
    basis: Vec<Vec<f32>>,
    middles: Vec<[f32; LATENT]>,
    dimensions: usize,
}

impl Source {
    /// One that begins anew.
    pub fn new(kind: Dataset, dimensions: usize, seed: u64) -> Self {
        let mut random = Rng::with_seed(seed);
        match kind {
            Dataset::Random => Self::Random(random, dimensions),
            Dataset::Clusters => {
                // So that a coordinate is about 1.
                let scale = 1.0 / (LATENT as f32).sqrt();
                let mut of = |count: usize, scale: f32| -> Vec<f32> {
                    (0..count).map(|_| scale * normal(&mut random)).collect()
                };
                let basis = (0..LATENT).map(|_| of(dimensions, scale)).collect();
                let middle = |_| {
                    let mut middle = [0.0; LATENT];
                    middle.copy_from_slice(&of(LATENT, 1.0));
                    middle
                };
                let middles = (0..CLUSTERS).map(middle).collect();
                let space = Space {
                    basis,
                    middles,
                    dimensions,
                };
                Self::Clusters(random, Box::new(space))
            }
            Dataset::Digits => Self::Digits(digit_vectors().0),
        }
    }

    /// The points of these ids, with a small payload; fewer if there are no more vectors.
    pub fn records(&mut self, ids: std::ops::Range<u64>) -> Vec<Record> {
        let records = ids.map_while(|id| {
            Some(Record {
                id,
                vector: self.vector()?,
                payload: [
                    ("number".to_owned(), json!(id)),
                    ("color".to_owned(), json!(COLORS[(id % 4) as usize])),
                ]
                .into_iter()
                .collect(),
            })
        });
        records.collect()
    }

    /// The next one, if there is one.
    pub fn vector(&mut self) -> Option<Vec<f32>> {
        match self {
            Self::Random(random, dimensions) => {
                Some((0..*dimensions).map(|_| random.f32() - 0.5).collect())
            }
            Self::Clusters(random, space) => Some(space.vector(random)),
            Self::Digits(left) => left.pop(),
        }
    }
}

impl Space {
    fn vector(&self, random: &mut Rng) -> Vec<f32> {
        // The square makes the first clusters the largest.
        let place = random.f32() * random.f32() * CLUSTERS as f32;
        let middle = self.middles.get(place as usize).unwrap_or(&[0.0; LATENT]);
        let mut vector: Vec<f32> = (0..self.dimensions)
            .map(|_| NOISE * normal(random))
            .collect();
        for (middle, direction) in middle.iter().zip(&self.basis) {
            let along = middle + SPREAD * normal(random);
            for (coordinate, step) in vector.iter_mut().zip(direction) {
                *coordinate += along * step;
            }
        }
        vector
    }
}

/// About normally distributed, and the same on every processor: no logarithm, no cosine.
fn normal(random: &mut Rng) -> f32 {
    (0..12).map(|_| random.f32()).sum::<f32>() - 6.0
}

/// Those that are written and those that are searched for, each the next one last.
fn digit_vectors() -> (Vec<Vec<f32>>, Vec<Vec<f32>>) {
    let mut written: Vec<Vec<f32>> = digits::load()
        .into_iter()
        .map(|digit| digit.pixels.to_vec())
        .collect();
    let searched = written.split_off(written.len().saturating_sub(SEARCHED_DIGITS));
    (written, searched)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_data_and_another_does_not() {
        for kind in [Dataset::Random, Dataset::Clusters] {
            let vectors = |seed| {
                let data = Data::make(kind, 20, 32, 5, seed);
                assert_eq!((data.records.len(), data.queries.len()), (20, 5));
                assert_eq!(data.dimensions(), 32);
                (
                    data.records.last().map(|it| it.vector.clone()),
                    data.queries,
                )
            };
            assert_eq!(vectors(1), vectors(1));
            assert_ne!(vectors(1), vectors(2));
        }
    }

    #[test]
    fn neighbours_in_clusters_are_nearer_than_random_ones() {
        // How much nearer the nearest is than the one in the middle, by cosine.
        let contrast = |kind| {
            let data = Data::make(kind, 500, 128, 20, 1);
            let of = |query: &Vec<f32>| {
                let mut scores: Vec<f32> = data
                    .records
                    .iter()
                    .map(|it| cosine(&it.vector, query))
                    .collect();
                scores.sort_by(f32::total_cmp);
                scores[499] - scores[250]
            };
            data.queries.iter().map(of).sum::<f32>() / 20.0
        };
        assert!(contrast(Dataset::Clusters) > 1.5 * contrast(Dataset::Random));
    }

    #[test]
    fn digits_that_are_searched_for_are_not_written() {
        let data = Data::make(Dataset::Digits, 5_000, 1, 5_000, 1);
        assert_eq!((data.records.len(), data.queries.len()), (1_500, 297));
        assert_eq!(data.dimensions(), 64);
        let all = digits::load();
        assert!(
            all[1_500..]
                .iter()
                .all(|digit| data.queries.contains(&digit.pixels.to_vec()))
        );
    }

    fn cosine(a: &[f32], b: &[f32]) -> f32 {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
    }
}
