//! The flags that every command has.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use edge_sync_host::Durability;
use edge_sync_upload::FollowedShards;
use serde::Deserialize;

/// The flags that every command has. Help texts name the environment variable that says the same.
#[derive(Args, Clone, Debug, Default)]
pub struct Flags {
    /// Data directory of the shard [EDGE_SYNC_DATA_DIR] [default: edge-sync-data]
    #[arg(long, global = true, value_name = "DIR", help_heading = "Settings")]
    pub data_dir: Option<PathBuf>,
    /// URL of the Qdrant server [QDRANT_URL]
    #[arg(long, global = true, value_name = "URL", help_heading = "Settings")]
    pub url: Option<String>,
    /// Collection on the server [EDGE_SYNC_COLLECTION]
    #[arg(long, global = true, value_name = "NAME", help_heading = "Settings")]
    pub collection: Option<String>,
    /// Only this shard of a collection of several, by its number; `all` for all of them again
    /// [EDGE_SYNC_SHARD]
    #[arg(long, global = true, value_name = "N", help_heading = "Settings")]
    pub shard: Option<FollowedShards>,
    /// Shard key of the device, in a collection that is sharded by keys [EDGE_SYNC_SHARD_KEY]
    #[arg(long, global = true, value_name = "KEY", help_heading = "Settings")]
    pub shard_key: Option<String>,
    /// Only the points of one tenant, told apart by a field of the payload [EDGE_SYNC_TENANT]
    #[arg(
        long,
        global = true,
        value_name = "FIELD=VALUE",
        help_heading = "Settings"
    )]
    pub tenant: Option<String>,
    /// File that holds the API key; otherwise it is taken from QDRANT_API_KEY
    #[arg(long, global = true, value_name = "FILE", help_heading = "Settings")]
    pub api_key_file: Option<PathBuf>,
    /// PEM file with the authorities to trust over https, instead of the system's [SSL_CERT_FILE]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Settings")]
    pub ca_file: Option<PathBuf>,
    /// The component [EDGE_SYNC_COMPONENT] [default: edge_sync.wasm beside this executable]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Settings")]
    pub component: Option<PathBuf>,
    /// When a write is on disk: always, interval:MILLISECONDS or os [EDGE_SYNC_DURABILITY]
    #[arg(long, global = true, value_name = "WHEN", help_heading = "Settings")]
    pub durability: Option<DurabilitySetting>,
    /// Most memory of the shard, in MiB, 32 to 4096 [EDGE_SYNC_MEMORY_MIB] [default: 2048]
    #[arg(long, global = true, value_name = "MIB", help_heading = "Settings", value_parser = number::<usize>)]
    pub memory_mib: Option<usize>,
    /// TOML file with settings, also those without a flag (below) [default: edge-sync.toml here or in
    /// the configuration folder]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Settings")]
    pub config_file: Option<PathBuf>,
}

/// `always`, `interval:200`, `os`.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(try_from = "String")]
pub struct DurabilitySetting(pub Durability);

impl FromStr for DurabilitySetting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let durability = match text.split_once(':') {
            None if text == "always" => Durability::Always,
            None if text == "os" => Durability::Os,
            Some(("interval", milliseconds)) => Durability::Interval(
                milliseconds
                    .parse()
                    .map_err(|_| format!("`{milliseconds}` is not a number of milliseconds"))?,
            ),
            _ => return Err("expected `always`, `interval:MILLISECONDS` or `os`".to_owned()),
        };
        Ok(DurabilitySetting(durability))
    }
}

impl TryFrom<String> for DurabilitySetting {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// A whole number that is no less than 0; the error is the message.
pub fn number<N: FromStr>(text: &str) -> Result<N, String> {
    text.parse()
        .map_err(|_| format!("`{text}` is not a whole number, or out of range"))
}
