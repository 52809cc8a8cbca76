//! What the command reads: bodies, filters and points, from files, standard input and arguments.

mod body;
#[cfg(any(feature = "csv", feature = "parquet"))]
mod columns;
mod incoming;
mod locate;
#[cfg(feature = "parquet")]
mod parquet;
mod points;
mod source;
mod spot;
#[cfg(feature = "csv")]
mod table;

use edge_sync_host::Error;

pub use body::{Body, filter, id_json, point_id, vector};
pub use incoming::Incoming;
pub use locate::{Position, position_of, split_position};
pub use points::point_index;
pub use source::{Source, is_json, not_opened};
pub use spot::{Spot, placed};

use crate::arguments::{Format, Upsert};

/// The points in `source`, in the form that the flags say, or else the name of the file.
///
/// Errors: as [`Source::open`].
pub fn incoming(source: &Source, arguments: &Upsert) -> Result<Incoming, Error> {
    let format = arguments.format.unwrap_or_else(|| source.format());
    match format {
        Format::Json => {
            let points = points::Points::open(source)?;
            let read = points.progress();
            Ok(Incoming {
                points: Box::new(points),
                read,
            })
        }
        #[cfg(feature = "csv")]
        Format::Csv | Format::Tsv => table::csv(source, format, &arguments.columns),
        #[cfg(feature = "parquet")]
        Format::Parquet => parquet::parquet(source, &arguments.columns),
        #[cfg(not(all(feature = "csv", feature = "parquet")))]
        _ => Err(Error::Unsupported(format!(
            "this build reads no {format:?} files; one with `--features {}` does",
            match format {
                Format::Parquet => "parquet",
                _ => "csv",
            }
        ))),
    }
}
