//! A double of a Qdrant server on the command line, to try things by hand.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use edge_sync_double::{Options, QdrantDouble, RandomFaults};

/// A double of a Qdrant server: its REST API over the native engine, with faults on demand.
#[derive(Debug, Parser)]
#[command(name = "qdrant-double", version)]
struct Arguments {
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:6333")]
    listen: SocketAddr,
    /// File with the API key that requests have to present.
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// Folder for collections, taken up again if it has any [default: a temporary one].
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
    /// Send snapshots no faster than this.
    #[arg(long, value_name = "BYTES_PER_SECOND")]
    throttle: Option<u64>,
    /// Be one node of a cluster, which has shard keys.
    #[arg(long)]
    cluster: bool,
    /// Refuse connections for the first so many seconds.
    #[arg(long, value_name = "SECONDS")]
    down_for: Option<f64>,
    /// Let this share of exchanges fail in random ways (0 to 1).
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    fail: f64,
    /// Seed of the random failures.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[tokio::main]
async fn main() -> std::process::ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    match run(Arguments::parse()).await {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("qdrant-double: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let api_key = match &arguments.api_key_file {
        Some(path) => {
            let key = std::fs::read_to_string(path)
                .map_err(|error| format!("read the API key from {}: {error}", path.display()))?;
            Some(key.trim().to_owned())
        }
        None => None,
    };
    let down_for = arguments
        .down_for
        .map(Duration::try_from_secs_f64)
        .transpose()?;
    let double = QdrantDouble::start(Options {
        listen: arguments.listen,
        api_key,
        directory: arguments.dir,
        down: down_for.is_some(),
        cluster: arguments.cluster,
        ..Options::default()
    })
    .map_err(|error| format!("start on {}: {error}", arguments.listen))?;
    double.record_bodies(false);
    double.throttle_snapshots(arguments.throttle);
    if arguments.fail > 0.0 {
        double
            .faults()
            .random(Some(RandomFaults::passing(arguments.seed, arguments.fail)));
    }
    // The first line on stdout, so that scripts can read the port.
    println!("{}", double.url());
    let mut stop = std::pin::pin!(stop_signal());
    if let Some(down_for) = down_for {
        eprintln!("down for {} s", down_for.as_secs_f64());
        tokio::select! {
            () = tokio::time::sleep(down_for) => double.resume()?,
            signal = &mut stop => return Ok(signal?),
        }
        eprintln!("up");
    }
    stop.await?;
    Ok(())
}

async fn stop_signal() -> std::io::Result<()> {
    #[cfg(unix)]
    {
        let mut terminate =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! {
            result = tokio::signal::ctrl_c() => result,
            _ = terminate.recv() => Ok(()),
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await
}
