//! The exported interfaces: hands each call on, with what the instance holds.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use edge_sync_clock::now_ms;
use edge_sync_engine as engine;
use serde_json::{Value, json};

use crate::Component;
use crate::bindings::shard::{Opened, ScoredPoint, ScrollPage, ScrollRequest, SearchRequest};
use crate::bindings::shard::{Selection, ShardInfo, StoredPoint};
use crate::bindings::types::{Options, Point, PointId, Receipt};
use crate::bindings::{courier, peek, queue, reader, restore, shard, sync};
use crate::convert;
use crate::directory::Directory;
use crate::download::Download;
use crate::downloading::Downloading;
use crate::error::{Error, Result};
use crate::instance::{self, with_shard, with_source, with_staging, with_store};
use crate::pull::Pull;
use crate::reader::{self as readers, Reader};
use crate::request as requests;
use crate::restore::Staging;
use crate::room;
use crate::share;
use crate::store::Store;
use crate::tenant::{PointsDownload, PointsFile};

/// Runs a write by its REST form, the one way in which writes other than typed points are parsed.
fn write(store: &mut Store, method: &str, path: &str, body: Value) -> Result<Receipt> {
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    match engine::parse_request(method, path, &body)? {
        engine::Request::Write(write) => store.write(write),
        engine::Request::Read(_) | engine::Request::Configure(_) => {
            Err(Error::Internal(format!("{path} is not a write")))
        }
    }
}

impl shard::Guest for Component {
    fn create(directory: String, config: String, options: Options) -> Result<Opened> {
        instance::open_with(|| Store::create(Directory::new(directory), &config, options))
    }

    fn open(directory: String, options: Options) -> Result<Opened> {
        instance::open_with(|| Store::open(Directory::new(directory), options))
    }

    fn reopen(directory: String, options: Options, returned: u64) -> Result<Opened> {
        instance::open_with(|| Store::reopen(Directory::new(directory), options, returned))
    }

    fn before_write(free_disk_bytes: Option<u64>) -> Result<u64> {
        with_store(|store| Ok(store.before_write(free_disk_bytes)))
    }

    fn close() -> Result<Vec<String>> {
        instance::close()
    }

    fn upsert(points: Vec<Point>) -> Result<Receipt> {
        with_store(|store| {
            let points = convert::points_in(points)?;
            let operations = store.shard()?.prepare_upsert(points)?;
            store.commit(operations)
        })
    }

    fn delete(ids: Vec<PointId>) -> Result<Receipt> {
        with_store(|store| {
            let ids = convert::ids_in("ids", ids)?;
            let ids: Vec<Value> = ids.into_iter().map(engine::PointId::to_json).collect();
            write(store, "POST", "/points/delete", json!({ "points": ids }))
        })
    }

    fn delete_by_filter(filter: String) -> Result<Receipt> {
        with_store(|store| {
            let filter = engine::parse_json("filter", &filter)?;
            write(store, "POST", "/points/delete", json!({ "filter": filter }))
        })
    }

    fn batch(body: String) -> Result<Receipt> {
        with_store(|store| {
            let body = engine::parse_json("", &body)?;
            write(store, "POST", "/points/batch", body)
        })
    }

    fn create_payload_index(field_name: String, schema: String) -> Result<Receipt> {
        with_store(|store| {
            let schema = engine::parse_json("schema", &schema)?;
            let body = json!({ "field_name": field_name, "field_schema": schema });
            write(store, "PUT", "/index", body)
        })
    }

    fn delete_payload_index(field_name: String) -> Result<Receipt> {
        with_store(|store| {
            let path = format!("/index/{}", edge_sync_engine::encode_segment(&field_name));
            write(store, "DELETE", &path, Value::Null)
        })
    }

    fn retrieve(ids: Vec<PointId>, selection: Selection) -> Result<Vec<StoredPoint>> {
        with_shard(|shard| {
            let ids = convert::ids_in("ids", ids)?;
            let found = shard.retrieve(&ids, &convert::selection_in(&selection)?)?;
            Ok(found.into_iter().map(convert::stored_out).collect())
        })
    }

    fn search(request: SearchRequest) -> Result<Vec<ScoredPoint>> {
        with_shard(|shard| {
            let found = shard.search(convert::search_in(request)?)?;
            Ok(found.into_iter().map(convert::scored_out).collect())
        })
    }

    fn scroll(request: ScrollRequest) -> Result<ScrollPage> {
        with_shard(|shard| {
            let page = shard.scroll(convert::scroll_in(request)?)?;
            Ok(ScrollPage {
                points: page.points.into_iter().map(convert::stored_out).collect(),
                next: page.next.map(convert::id_out),
            })
        })
    }

    fn count(filter: Option<String>) -> Result<u64> {
        with_shard(|shard| {
            let filter = convert::json_in("filter", filter)?;
            Ok(shard.count(filter.as_ref())?)
        })
    }

    fn request(method: String, path: String, body: String) -> Result<String> {
        Ok(instance::request(&method, &path, &body)?.to_string())
    }

    fn answer(
        method: String,
        path: String,
        body: String,
    ) -> Result<Result<String, shard::Refusal>> {
        with_source(|source| {
            let answer = requests::answer(source, &method, &path, &body)?;
            Ok(answer
                .map(|result| result.to_string())
                .map_err(|(status, message)| shard::Refusal { status, message }))
        })
    }

    fn optimize() -> Result<bool> {
        with_store(Store::optimize)
    }

    fn needs_optimize() -> Result<bool> {
        with_store(|store| Ok(store.shard()?.has_optimizations()))
    }

    fn flush() -> Result<()> {
        with_store(Store::checkpoint)
    }

    fn info() -> Result<ShardInfo> {
        with_store(|store| {
            let shard = store.shard()?;
            let info = shard.info()?;
            Ok(ShardInfo {
                config: shard.config().to_json().to_string(),
                payload_schema: info.payload_schema.to_string(),
                points: info.points,
                indexed_vectors: info.indexed_vectors,
                segments: info.segments,
                generation: store.current().generation,
                memory_bytes: room::memory_bytes(),
            })
        })
    }
}

impl reader::Guest for Component {
    fn lend(number: u32) -> Result<u64> {
        with_store(|store| readers::lend(store, number))
    }

    fn position() -> Result<u64> {
        with_store(|store| store.check().map(|()| store.log().last()))
    }

    fn open(directory: String, copy: String, position: u64) -> Result<()> {
        instance::read_with(|| Reader::open(&Directory::new(directory), &copy, position))
    }

    fn follow(until: u64) -> Result<u64> {
        instance::with_reader(|reader| reader.follow(until))
    }
}

impl queue::Guest for Component {
    fn open(directory: String, options: Options) -> Result<Opened> {
        instance::open_with(|| Store::open_queue(Directory::new(directory), options))
    }

    fn next_batch(
        limits: queue::BatchLimits,
        until: Option<u64>,
        done: Option<queue::Progress>,
    ) -> Result<Option<queue::UploadBatch>> {
        with_store(|store| crate::queue::next_batch(store, limits, until, done))
    }

    fn standing() -> Result<queue::QueueStanding> {
        with_store(|store| crate::queue::standing(store))
    }

    fn changing_vectors() -> Result<Vec<String>> {
        with_store(|store| crate::queue::changing_vectors(store))
    }

    fn bind(binding: queue::Binding) -> Result<()> {
        let binding = crate::binding::from_wit(binding);
        with_store(|store| crate::binding::store(store.directory(), &binding))
    }

    fn resend() -> Result<u64> {
        with_store(crate::resend::resend)
    }

    fn acknowledge(last: u64) -> Result<()> {
        with_store(|store| store.acknowledge(last))
    }

    fn reject(sequence: u64, status: u16, message: String) -> Result<()> {
        with_store(|store| store.reject(sequence, status, &message))
    }

    fn skip(count: u32) -> Result<u32> {
        with_store(|store| store.skip(count))
    }

    fn waiting(after: u64, limit: u32) -> Result<Vec<queue::WaitingOperation>> {
        with_store(|store| crate::queue::waiting(store, after, limit))
    }

    fn rejected(after: u64, limit: u32) -> Result<Vec<queue::RejectedOperation>> {
        with_store(|store| crate::queue::rejected(store, after, limit))
    }

    fn retry_rejected(sequence: u64) -> Result<()> {
        with_store(|store| store.retry_rejected(sequence))
    }

    fn retry_rejected_after(after: u64, limit: u32) -> Result<queue::Retried> {
        with_store(|store| store.retry_rejected_after(after, limit))
    }

    fn drop_rejected(sequence: u64) -> Result<()> {
        with_store(|store| store.drop_rejected(sequence))
    }

    fn drop_rejected_up_to(last: u64) -> Result<u64> {
        with_store(|store| store.drop_rejected_up_to(last))
    }

    fn status() -> Result<queue::QueueStatus> {
        with_store(crate::queue::status)
    }
}

impl peek::Guest for Component {
    fn status(directory: String) -> Result<peek::Peeked> {
        crate::peek::status(&Directory::new(directory))
    }

    fn waiting(directory: String, after: u64, limit: u32) -> Result<Vec<queue::WaitingOperation>> {
        crate::peek::waiting(&Directory::new(directory), after, limit)
    }

    fn rejected(
        directory: String,
        after: u64,
        limit: u32,
    ) -> Result<Vec<queue::RejectedOperation>> {
        crate::peek::rejected(&Directory::new(directory), after, limit)
    }
}

impl restore::Guest for Component {
    fn stage(
        directory: String,
        snapshots: Vec<String>,
        barrier: u64,
        options: Options,
    ) -> Result<restore::Staged> {
        let snapshots: Vec<PathBuf> = snapshots.into_iter().map(PathBuf::from).collect();
        instance::stage(|| Staging::stage(Directory::new(directory), &snapshots, barrier, options))
    }

    fn stage_points(
        directory: String,
        points: String,
        barrier: u64,
        options: Options,
    ) -> Result<restore::Staged> {
        let points = Path::new(&points);
        instance::stage(|| {
            Staging::stage_points(Directory::new(directory), points, barrier, options)
        })
    }

    fn compare_points(points: String) -> Result<restore::Difference> {
        let mut points = PointsFile::open(Path::new(&points))?;
        with_store(|store| points.compare(store.shard()?))
    }

    fn begin_pull(
        directory: String,
        origins: Vec<restore::Origin>,
        everything: bool,
    ) -> Result<Vec<restore::Offer>> {
        let origins = origins.into_iter();
        let origins = origins.map(|origin| edge_sync_mirror::Origin {
            url: origin.url,
            collection: origin.collection,
            shard: origin.shard,
            shard_key: origin.shard_key,
        });
        instance::begin_pull(|| {
            Pull::begin(Directory::new(directory), origins.collect(), everything)
        })
    }

    fn stage_pull(
        snapshots: Vec<Option<String>>,
        barrier: u64,
        settled: bool,
        options: Options,
    ) -> Result<restore::PullOutcome> {
        let snapshots: Vec<Option<PathBuf>> = snapshots
            .into_iter()
            .map(|snapshot| snapshot.map(PathBuf::from))
            .collect();
        instance::stage_pull(|pull| pull.stage(&snapshots, barrier, settled, options))
    }

    fn settle_pull() -> Result<()> {
        instance::with_pull(|pull| pull.settle())
    }

    fn begin_optimize() -> Result<Option<u64>> {
        with_store(crate::optimize::begin)
    }

    fn plan_optimize() -> Result<Vec<restore::PlannedOptimization>> {
        with_store(|store| {
            let planned = store.shard()?.planned_optimizations().into_iter();
            Ok(planned.map(convert::planned_out).collect())
        })
    }

    fn build_share(
        directory: String,
        planned: restore::PlannedOptimization,
        options: Options,
    ) -> Result<bool> {
        let planned = convert::planned_in(planned);
        instance::with_nothing(|| share::build(&Directory::new(directory), &planned, &options))
    }

    fn stage_optimize(directory: String, options: Options) -> Result<Option<restore::Staged>> {
        instance::stage_if_any(|| Staging::stage_optimized(Directory::new(directory), options))
    }

    fn end_optimize() -> Result<()> {
        with_store(crate::optimize::end)
    }

    fn promote(binding: Option<queue::Binding>) -> Result<Opened> {
        let binding = binding.map(crate::binding::from_wit);
        instance::promote(binding.as_ref())
    }

    fn deleted_here(until: u64) -> Result<Vec<PointId>> {
        with_store(|store| {
            let deleted = crate::restore::deleted_here(store, until)?;
            Ok(deleted.into_iter().map(convert::id_out).collect())
        })
    }

    fn held(ids: Vec<PointId>) -> Result<Vec<PointId>> {
        with_staging(|staging| {
            let held = staging.held(&convert::ids_in("ids", ids)?)?;
            Ok(held.into_iter().map(convert::id_out).collect())
        })
    }

    fn lacking(ids: Vec<PointId>) -> Result<Vec<PointId>> {
        with_staging(|staging| {
            let lacking = staging.lacking(&convert::ids_in("ids", ids)?)?;
            Ok(lacking.into_iter().map(convert::id_out).collect())
        })
    }

    fn delete_again(ids: Vec<PointId>) -> Result<u64> {
        with_staging(|staging| staging.delete_again(&convert::ids_in("ids", ids)?))
    }

    fn abandon() -> Result<()> {
        instance::abandon()
    }
}

impl courier::Guest for Component {
    type Download = RefCell<Downloading>;

    fn exchange(
        server: courier::Server,
        request: queue::UploadRequest,
        server_wide: bool,
    ) -> Result<courier::Answer> {
        let request = edge_sync_upload::Request {
            server_wide,
            ..request.into()
        };
        match crate::courier::Server::new(server)?.exchange(&request)? {
            Ok(answer) => Ok(answer.into()),
            Err(no) => {
                let failure = edge_sync_upload::verdict::no_answer(&no);
                Err(crate::courier::server_error(failure))
            }
        }
    }

    fn judge(request: queue::UploadRequest, answer: courier::Answer) -> Result<bool> {
        let verdict = edge_sync_upload::judge_write(&request.into(), &answer.into(), now_ms());
        crate::courier::settle(verdict)
    }

    fn send(server: courier::Server, request: queue::UploadRequest) -> Result<bool> {
        crate::courier::Server::new(server)?.send(&request.into())
    }

    fn optimizer(server: courier::Server) -> Result<courier::OptimizerState> {
        crate::courier::Server::new(server)?.optimizer()
    }

    fn absent(server: courier::Server, ids: Vec<PointId>) -> Result<Vec<PointId>> {
        let ids = convert::ids_in("ids", ids)?;
        let absent = crate::courier::Server::new(server)?.absent(&ids)?;
        Ok(absent.into_iter().map(convert::id_out).collect())
    }

    fn locate(server: courier::Server) -> Result<courier::Placement> {
        crate::courier::Server::new(server)?.placement()
    }

    fn start_download(
        server: courier::Server,
        shard: u32,
        source: courier::SnapshotSource,
        file: String,
    ) -> Result<courier::Download> {
        let server = crate::courier::Server::new(server)?;
        let download = Download::start(server, shard, source, file.into())?;
        Ok(Downloading::Snapshot(download).into())
    }

    fn start_partial(
        server: courier::Server,
        shard: u32,
        manifest: String,
        file: String,
    ) -> Result<courier::Download> {
        let server = crate::courier::Server::new(server)?;
        let download = Download::partial(server, shard, manifest, file.into())?;
        Ok(Downloading::Snapshot(download).into())
    }

    fn start_points(server: courier::Server, file: String) -> Result<courier::Download> {
        let server = crate::courier::Server::new(server)?;
        let download = PointsDownload::start(server, file.into())?;
        Ok(Downloading::Points(download).into())
    }
}

impl From<Downloading> for courier::Download {
    fn from(download: Downloading) -> Self {
        Self::new(RefCell::new(download))
    }
}

impl courier::GuestDownload for RefCell<Downloading> {
    fn step(&self) -> Result<courier::DownloadProgress> {
        match self.try_borrow_mut() {
            Ok(mut download) => download.step(),
            Err(_) => Err(Error::Internal(
                "a step of this download is under way".to_owned(),
            )),
        }
    }
}

impl sync::Guest for Component {
    fn sync(server: courier::Server, options: sync::SyncOptions) -> Result<sync::SyncReport> {
        let server = crate::courier::Server::new(server)?;
        crate::sync::sync(&server, &options)
    }

    fn restore(
        directory: String,
        server: courier::Server,
        source: courier::SnapshotSource,
        force: bool,
        options: Options,
    ) -> Result<Opened> {
        let server = crate::courier::Server::new(server)?;
        crate::sync::restore(Directory::new(directory), &server, source, force, options)
    }

    fn restore_file(
        directory: String,
        snapshot: String,
        force: bool,
        options: Options,
    ) -> Result<Opened> {
        let directory = Directory::new(directory);
        crate::sync::restore_file(directory, Path::new(&snapshot), force, options)
    }
}
