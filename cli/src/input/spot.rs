//! Where something stands in an input, in words and taken apart again.

use edge_sync_host::Error;

use super::locate::Position;

/// Where a point stands in its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spot {
    /// What `line` counts: `line`, `row`.
    pub unit: &'static str,
    /// The line that it begins on, from 1.
    pub line: u64,
    /// Bytes on that line before it; none for a row of a table, of which the text is made.
    pub column: Option<u64>,
    /// Its place in a list, from 0, where it is in one.
    pub element: Option<u64>,
}

impl Spot {
    /// Of a point that is a row of a table.
    pub fn row(unit: &'static str, line: u64) -> Spot {
        Spot {
            unit,
            line,
            column: None,
            element: None,
        }
    }

    /// A field of the point with where it stands: `line 7, column 120: points[36].vector[2]`. `at` is its
    /// position in the point's text.
    pub fn of_field(&self, field: &str, at: Option<Position>) -> String {
        let Spot { unit, line, .. } = self;
        let place = match (at, self.column) {
            (Some(at), Some(column)) => {
                let before = if at.line == 1 { column } else { 0 };
                format!(
                    "{unit} {}, column {}",
                    line + at.line - 1,
                    before + at.column
                )
            }
            _ => format!("{unit} {line}"),
        };
        let element = self.element.map(|element| format!("points[{element}]"));
        let path = match (element, field) {
            (None, field) => field.to_owned(),
            (Some(element), "") => element,
            (Some(element), field) => format!("{element}.{field}"),
        };
        match path.as_str() {
            "" => place,
            path => format!("{place}: {path}"),
        }
    }

    /// Says where an input error is.
    pub fn blame(&self, error: Error) -> Error {
        match error {
            Error::InvalidInput { field, message } => Error::InvalidInput {
                field: self.of_field(&field, None),
                message,
            },
            other => other,
        }
    }
}

/// Where a field stands that a message names: `line 3, column 7: points[2].id`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Placed<'a> {
    pub line: Option<u64>,
    pub row: Option<u64>,
    pub column: Option<u64>,
    pub field: &'a str,
}

/// Takes apart what [`Spot::of_field`] and [`super::Body`] put together.
pub fn placed(text: &str) -> Placed<'_> {
    let read = || {
        let (place, field) = text.split_once(": ").unwrap_or((text, ""));
        let (unit, numbers) = place.split_once(' ')?;
        let (number, column) = match numbers.split_once(", column ") {
            Some((number, column)) => (number, Some(column.parse().ok()?)),
            None => (numbers, None),
        };
        let number = Some(number.parse().ok()?);
        let none = Placed::default();
        Some(match unit {
            "line" => Placed {
                line: number,
                column,
                field,
                ..none
            },
            "row" => Placed {
                row: number,
                field,
                ..none
            },
            "column" => Placed {
                column: number,
                field,
                ..none
            },
            _ => return None,
        })
    };
    read().unwrap_or(Placed {
        field: text,
        ..Placed::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_has_one_line_number_and_counts_from_the_file() {
        let spot = |column, element| Spot {
            unit: "line",
            line: 7,
            column,
            element,
        };
        let at = |line, column| Some(Position { line, column });
        let field = "vector[2]";
        for (spot, at, text) in [
            (
                spot(Some(0), None),
                at(1, 20),
                "line 7, column 20: vector[2]",
            ),
            (
                spot(Some(100), Some(36)),
                at(1, 20),
                "line 7, column 120: points[36].vector[2]",
            ),
            (
                spot(Some(100), Some(0)),
                at(3, 5),
                "line 9, column 5: points[0].vector[2]",
            ),
            (spot(Some(0), None), None, "line 7: vector[2]"),
            // A position in a text that is not in the input tells nothing.
            (Spot::row("row", 7), at(1, 20), "row 7: vector[2]"),
        ] {
            assert_eq!(spot.of_field(field, at), text);
        }
        assert_eq!(spot(Some(0), None).of_field("", None), "line 7");
        let error = Error::InvalidInput {
            field: field.into(),
            message: "expected 3 values".into(),
        };
        assert_eq!(
            spot(Some(0), Some(36)).blame(error).to_string(),
            "line 7: points[36].vector[2]: expected 3 values"
        );
    }

    #[test]
    fn where_something_stands_is_taken_apart_again() {
        let none = Placed::default;
        for (text, whole) in [
            (
                "line 7, column 120: points[36].vector[2]",
                Placed {
                    line: Some(7),
                    column: Some(120),
                    field: "points[36].vector[2]",
                    ..none()
                },
            ),
            (
                "line 3",
                Placed {
                    line: Some(3),
                    ..none()
                },
            ),
            (
                "row 2: id",
                Placed {
                    row: Some(2),
                    field: "id",
                    ..none()
                },
            ),
            (
                "column 5",
                Placed {
                    column: Some(5),
                    ..none()
                },
            ),
            (
                "filter.must[0]",
                Placed {
                    field: "filter.must[0]",
                    ..none()
                },
            ),
            (
                "line of sight: x",
                Placed {
                    field: "line of sight: x",
                    ..none()
                },
            ),
        ] {
            assert_eq!(placed(text), whole);
        }
    }
}
