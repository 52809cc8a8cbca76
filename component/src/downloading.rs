//! What a download resource is: a snapshot on its way, or a tenant's points.

use crate::bindings::courier::DownloadProgress;
use crate::download::Download;
use crate::error::Result;
use crate::tenant::PointsDownload;

/// A download, step by step.
pub enum Downloading {
    Snapshot(Download),
    Points(PointsDownload),
}

impl Downloading {
    pub fn step(&mut self) -> Result<DownloadProgress> {
        match self {
            Self::Snapshot(download) => download.step(),
            Self::Points(download) => download.step(),
        }
    }
}
