//! Digits drawn with half blocks: two rows of pixels a line of text, so that pixels are square.

use std::fmt::Write as _;

use edge_sync_fixtures::digits::{PIXELS, SIDE};

/// Brightest pixel of the data set.
const WHITE: f32 = 16.0;

/// Blanks between two images.
const GAP: usize = 3;

/// How pixels become characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ink {
    /// Shades of grey, with the escape sequences of a terminal of 256 colours.
    Grey,
    /// On or off: plain text, for pipes and terminals without colours.
    Plain,
}

impl Ink {
    /// Grey on a terminal that wants colours, else plain. <https://no-color.org>
    pub fn of_terminal(is_terminal: bool) -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        if is_terminal && !refused {
            Self::Grey
        } else {
            Self::Plain
        }
    }
}

/// An image and the lines of text below it.
#[derive(Debug, Clone)]
pub struct Picture {
    /// Intensities 0 to 16, row by row.
    pub pixels: [f32; PIXELS],
    /// Short lines; the columns are as wide as the longest.
    pub caption: Vec<String>,
}

/// Draws the pictures beside one another, each line indented by `indent` blanks and ended by a
/// line break.
pub fn side_by_side(pictures: &[Picture], ink: Ink, indent: usize) -> String {
    let widths: Vec<usize> = pictures
        .iter()
        .map(|picture| {
            let captions = picture.caption.iter().map(|line| line.chars().count());
            captions.max().unwrap_or(0).max(SIDE)
        })
        .collect();
    let mut text = String::new();
    for line in 0..SIDE / 2 {
        push_row(&mut text, indent, pictures, &widths, |text, picture| {
            draw_line(text, &picture.pixels, line, ink);
            SIDE
        });
    }
    let captions = pictures.iter().map(|picture| picture.caption.len()).max();
    for line in 0..captions.unwrap_or(0) {
        push_row(&mut text, indent, pictures, &widths, |text, picture| {
            let caption = picture.caption.get(line).map_or("", String::as_str);
            text.push_str(caption);
            caption.chars().count()
        });
    }
    text
}

/// One line of text through all pictures. `cell` writes a picture's part and says how wide it is.
fn push_row(
    text: &mut String,
    indent: usize,
    pictures: &[Picture],
    widths: &[usize],
    cell: impl Fn(&mut String, &Picture) -> usize,
) {
    let mut blanks = indent;
    for (picture, width) in pictures.iter().zip(widths) {
        text.extend(std::iter::repeat_n(' ', blanks));
        let used = cell(text, picture);
        blanks = width.saturating_sub(used) + GAP;
    }
    // Blanks at the end would be noise in a file; a drawn line ends with its colours reset.
    text.truncate(text.trim_end_matches(' ').len());
    text.push('\n');
}

fn draw_line(text: &mut String, pixels: &[f32; PIXELS], line: usize, ink: Ink) {
    for column in 0..SIDE {
        let at = |row: usize| pixels.get(row * SIDE + column).copied().unwrap_or(0.0);
        let (upper, lower) = (at(2 * line), at(2 * line + 1));
        match ink {
            Ink::Grey => {
                // Writing to a String does not fail.
                let _ = write!(text, "\x1b[38;5;{};48;5;{}m▀", grey(upper), grey(lower));
            }
            Ink::Plain => text.push(match (is_on(upper), is_on(lower)) {
                (true, true) => '█',
                (true, false) => '▀',
                (false, true) => '▄',
                (false, false) => ' ',
            }),
        }
    }
    if ink == Ink::Grey {
        text.push_str("\x1b[0m");
    }
}

/// The 256-colour palette's ramp of 24 greys, from 232.
fn grey(intensity: f32) -> u8 {
    232 + (intensity.clamp(0.0, WHITE) / WHITE * 23.0).round() as u8
}

fn is_on(intensity: f32) -> bool {
    intensity >= WHITE / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diagonal() -> [f32; PIXELS] {
        std::array::from_fn(|n| if n % SIDE == n / SIDE { WHITE } else { 0.0 })
    }

    #[test]
    fn plain_pictures_stand_side_by_side_above_their_captions() {
        let pictures = [
            Picture {
                pixels: diagonal(),
                caption: vec!["a long caption".into(), "x".into()],
            },
            Picture {
                pixels: [WHITE; PIXELS],
                caption: vec!["y".into()],
            },
        ];
        let text = side_by_side(&pictures, Ink::Plain, 2);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "  ▀▄               ████████",
                "    ▀▄             ████████",
                "      ▀▄           ████████",
                "        ▀▄         ████████",
                "  a long caption   y",
                "  x",
            ]
        );
    }

    #[test]
    fn grey_lines_reset_the_colours() {
        let pictures = [Picture {
            pixels: diagonal(),
            caption: Vec::new(),
        }];
        let text = side_by_side(&pictures, Ink::Grey, 0);
        assert_eq!(text.lines().count(), SIDE / 2);
        assert!(text.lines().all(|line| line.ends_with("\x1b[0m")));
        assert!(text.contains("38;5;255") && text.contains("48;5;232"));
    }
}
