//! What one request may ask for, so that its answer and what the engine needs on the way to it fit
//! a component's memory: an allocation that fails there is a trap, which no caller can handle.
//!
//! Limits beyond the number of points mean all points. What remains is added up over everything
//! that one request asks for, and too much is an error that names the field.

use qdrant_edge::{EdgeConfig, WithVector};

use crate::error::{Error, Result};

/// Results in all, of every query, prefetch and search of a request (some 250 bytes each while the
/// engine works). A shard with more points may still be read as a whole, by one query.
const MAX_RESULTS: usize = 1 << 21;
/// Results that are granted without looking how many points there are.
const FEW: usize = 1 << 10;
/// Numbers in the vectors of a query's examples, or in the vectors of an answer.
const MAX_NUMBERS: usize = 1 << 24;
/// JSON values in all copies of filters: the engine copies a filter for each prefetch below it.
const MAX_COPIED_FILTERS: usize = 1 << 21;

/// What is left of it.
pub(crate) struct Allowance<'a> {
    count: &'a dyn Fn() -> Result<usize>,
    points: Option<usize>,
    results: usize,
    numbers: usize,
    answer: usize,
    filters: usize,
}

impl<'a> Allowance<'a> {
    /// For one request; `count` tells how many points there are, approximately but not too few.
    pub(crate) fn new(count: &'a dyn Fn() -> Result<usize>) -> Self {
        Self {
            count,
            points: None,
            results: MAX_RESULTS,
            numbers: MAX_NUMBERS,
            answer: MAX_NUMBERS,
            filters: MAX_COPIED_FILTERS,
        }
    }

    fn points(&mut self) -> Result<usize> {
        if let Some(points) = self.points {
            return Ok(points);
        }
        let points = (self.count)()?;
        self.points = Some(points);
        self.results = self
            .results
            .saturating_add(points.saturating_sub(MAX_RESULTS));
        Ok(points)
    }

    /// How many of `wanted` results there can be.
    ///
    /// Errors: [`Error::InvalidInput`] at `field` if that is more than a request may ask for.
    pub(crate) fn results(&mut self, field: &str, wanted: usize) -> Result<usize> {
        let granted = if wanted <= FEW {
            wanted
        } else {
            wanted.min(self.points()?.max(FEW))
        };
        self.results = self.results.checked_sub(granted).ok_or_else(|| {
            Error::invalid(
                field,
                format!("all limits of the request add up to more than {MAX_RESULTS} results"),
            )
        })?;
        Ok(granted)
    }

    /// Takes the cells of a distance matrix.
    ///
    /// Errors: [`Error::InvalidInput`] at `sample`.
    pub(crate) fn matrix(&mut self, sample: usize, limit: usize) -> Result<()> {
        match sample.checked_mul(limit) {
            Some(cells) if cells <= self.results => {
                self.results -= cells;
                Ok(())
            }
            _ => Err(Error::invalid(
                "sample",
                format!(
                    "{sample} points with {limit} neighbours each are more than {MAX_RESULTS} results"
                ),
            )),
        }
    }

    /// Takes `count` numbers for the examples of a query.
    ///
    /// Errors: [`Error::InvalidInput`] at `field`.
    pub(crate) fn numbers(&mut self, field: &str, count: usize) -> Result<()> {
        self.numbers = self.numbers.checked_sub(count).ok_or_else(|| {
            Error::invalid(
                field,
                format!(
                    "the vectors of the request's examples hold more than {MAX_NUMBERS} numbers"
                ),
            )
        })?;
        Ok(())
    }

    /// Numbers that further examples may hold.
    pub(crate) fn numbers_left(&self) -> usize {
        self.numbers
    }

    /// Takes a copy of filters that are made of `weight` JSON values.
    ///
    /// Errors: [`Error::InvalidInput`] at `field`.
    pub(crate) fn copied_filter(&mut self, field: &str, weight: usize) -> Result<()> {
        self.filters = self.filters.checked_sub(weight).ok_or_else(|| {
            Error::invalid(
                field,
                format!(
                    "the filters, copied to each prefetch below them, are made of more than \
                     {MAX_COPIED_FILTERS} values"
                ),
            )
        })?;
        Ok(())
    }

    /// Takes the vectors of `count` results. Rows of multivectors count as one, and sparse vectors
    /// as nothing: how long they are shows only when they are read.
    ///
    /// Errors: [`Error::InvalidInput`] at `field`, the limit.
    pub(crate) fn answer(
        &mut self,
        field: &str,
        count: usize,
        config: &EdgeConfig,
        vectors: &WithVector,
    ) -> Result<()> {
        let dimensions: usize = match vectors {
            WithVector::Bool(false) => 0,
            WithVector::Bool(true) => all_dimensions(config),
            WithVector::Selector(names) => names
                .iter()
                .filter_map(|name| config.vectors.get(name))
                .map(|params| params.size)
                .sum(),
        };
        let Some(numbers) = count.checked_mul(dimensions).filter(|n| *n <= self.answer) else {
            return Err(Error::invalid(
                field,
                format!(
                    "{count} results with vectors of {dimensions} dimensions in all: the vectors \
                     of one answer may hold {MAX_NUMBERS} numbers; ask for pages"
                ),
            ));
        };
        self.answer -= numbers;
        Ok(())
    }
}

/// How many points [`Allowance::answer`] grants with all their vectors; at least 1.
pub(crate) fn points_an_answer(config: &EdgeConfig) -> usize {
    (MAX_NUMBERS / all_dimensions(config).max(1)).max(1)
}

fn all_dimensions(config: &EdgeConfig) -> usize {
    config.vectors.values().map(|params| params.size).sum()
}
