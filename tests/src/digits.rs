//! The UCI handwritten digits test set (E. Alpaydin, C. Kaynak, 1998; CC BY 4.0).

use std::io::Read;

use flate2::read::GzDecoder;
use serde_json::{Value, json};

/// Width and height of an image.
pub const SIDE: usize = 8;

/// Dimensions of a digit's vector.
pub const PIXELS: usize = SIDE * SIDE;

/// One image and what it shows.
#[derive(Debug, Clone, PartialEq)]
pub struct Digit {
    /// Row in the data set, from 0; used as point id.
    pub row: u64,
    /// Intensities 0 to 16, row by row.
    pub pixels: [f32; PIXELS],
    /// The digit, 0 to 9.
    pub label: u8,
}

impl Digit {
    /// The digit as a REST point with the pixels as default vector and the payload
    /// `{"digit": label}`.
    pub fn point(&self) -> Value {
        json!({
            "id": self.row,
            "vector": self.pixels.as_slice(),
            "payload": {"digit": self.label},
        })
    }
}

/// All 1,797 digits, in the order of the data set.
pub fn load() -> Vec<Digit> {
    let mut text = String::new();
    GzDecoder::new(include_bytes!("../fixtures/digits.csv.gz").as_slice())
        .read_to_string(&mut text)
        .unwrap_or_else(|e| panic!("unpack the digits: {e}"));
    text.lines()
        .zip(0..)
        .map(|(line, row)| parse(line, row))
        .collect()
}

fn parse(line: &str, row: u64) -> Digit {
    let numbers: Vec<u8> = line
        .split(',')
        .map(|n| {
            n.trim()
                .parse()
                .unwrap_or_else(|e| panic!("digits row {row}: {n}: {e}"))
        })
        .collect();
    let (label, pixels) = numbers
        .split_last()
        .unwrap_or_else(|| panic!("digits row {row} is empty"));
    let pixels: Vec<f32> = pixels.iter().map(|&p| f32::from(p)).collect();
    Digit {
        row,
        pixels: pixels
            .try_into()
            .unwrap_or_else(|_| panic!("digits row {row} has not {PIXELS} pixels")),
        label: *label,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_set_is_whole() {
        let digits = super::load();
        assert_eq!(digits.len(), 1797);
        assert!(digits.iter().all(|d| d.label <= 9));
        assert!(
            digits
                .iter()
                .flat_map(|d| d.pixels)
                .all(|p| (0.0..=16.0).contains(&p))
        );
    }
}
