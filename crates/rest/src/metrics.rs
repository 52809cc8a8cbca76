//! `/metrics`: what Prometheus reads, under the server's names where the server has them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{
    Encoder as _, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, Registry,
    TextEncoder,
};

use crate::load::Load;
use crate::turns::Access;

/// Upper bounds in seconds: from what a lookup takes to what an optimization does.
const BUCKETS: [f64; 12] = [
    0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 20.0, 60.0,
];

/// A number that a backend adds to `/metrics`.
#[derive(Debug, Clone, PartialEq)]
pub struct Gauge {
    /// The metric's name.
    pub name: &'static str,
    /// What it says.
    pub help: &'static str,
    /// A label and its value.
    pub label: Option<(&'static str, String)>,
    /// How much it is now.
    pub value: f64,
}

/// How requests were answered since the start.
///
/// An error is one of the names and labels here.
pub(crate) struct Metrics(prometheus::Result<Responses>);

struct Responses {
    count: IntCounterVec,
    duration: HistogramVec,
}

impl Responses {
    fn new() -> prometheus::Result<Self> {
        let labels = ["method", "endpoint", "status"];
        Ok(Self {
            count: IntCounterVec::new(
                Opts::new("rest_responses_total", "total number of responses"),
                &labels,
            )?,
            duration: HistogramVec::new(
                HistogramOpts::new(
                    "rest_responses_duration_seconds",
                    "response duration histogram",
                )
                .buckets(BUCKETS.to_vec()),
                &labels,
            )?,
        })
    }
}

/// Counts each answer by its endpoint. A path that there is not is no endpoint.
pub(crate) async fn count(
    State(metrics): State<Arc<Metrics>>,
    request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let path = request.extensions().get::<MatchedPath>().cloned();
    let method = request.method().clone();
    let response = next.run(request).await;
    if let (Some(path), Ok(responses)) = (path, &metrics.0) {
        let endpoint = path.as_str().replace("{collection}", "{collection_name}");
        let status = response.status();
        let labels = [method.as_str(), &endpoint, status.as_str()];
        responses.count.with_label_values(&labels).inc();
        responses
            .duration
            .with_label_values(&labels)
            .observe(started.elapsed().as_secs_f64());
    }
    response
}

impl Metrics {
    pub(crate) fn new() -> Self {
        Self(Responses::new())
    }

    /// All of it, as it is sent.
    pub(crate) fn text(&self, gauges: &[Gauge], load: Option<&Load>) -> prometheus::Result<String> {
        let registry = Registry::new();
        let responses = self
            .0
            .as_ref()
            .map_err(|error| prometheus::Error::Msg(error.to_string()))?;
        register(&registry, responses.count.clone())?;
        register(&registry, responses.duration.clone())?;
        let mut named: Vec<(&str, GaugeVec)> = Vec::new();
        for gauge in gauges {
            let labels: Vec<&str> = gauge.label.iter().map(|(label, _)| *label).collect();
            let values: Vec<&str> = gauge.label.iter().map(|(_, value)| &**value).collect();
            let family = match named.iter().find(|(name, _)| *name == gauge.name) {
                Some((_, family)) => family.clone(),
                None => {
                    let mut opts = Opts::new(gauge.name, gauge.help);
                    if gauge.name == "app_info" {
                        opts = opts.const_label("name", "qdrant");
                    }
                    let family = GaugeVec::new(opts, &labels)?;
                    register(&registry, family.clone())?;
                    named.push((gauge.name, family.clone()));
                    family
                }
            };
            family
                .get_metric_with_label_values(&values)?
                .set(gauge.value);
        }
        if let Some(load) = load {
            of_load(&registry, load)?;
        }
        let mut families = registry.gather();
        families.extend(of_process());
        families.sort_by(|one, other| one.name().cmp(other.name()));
        let mut text = Vec::new();
        TextEncoder::new().encode(&families, &mut text)?;
        String::from_utf8(text).map_err(|error| prometheus::Error::Msg(error.to_string()))
    }
}

fn register(registry: &Registry, collector: impl Collector + 'static) -> prometheus::Result<()> {
    registry.register(Box::new(collector))
}

fn of_load(registry: &Registry, load: &Load) -> prometheus::Result<()> {
    let number = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
    let gauge = |name: &str, help: &str, value: usize| {
        let gauge = IntGauge::new(name, help)?;
        gauge.set(number(value));
        register(registry, gauge)
    };
    gauge(
        "edge_sync_connections",
        "open connections",
        load.open_connections(),
    )?;
    gauge(
        "edge_sync_request_bytes",
        "room that the bodies of requests have taken",
        load.room.taken(),
    )?;
    let waiting = GaugeVec::new(
        Opts::new(
            "edge_sync_requests_waiting",
            "requests that wait for their turn",
        ),
        &["kind"],
    )?;
    for (kind, name) in [(Access::Read, "read"), (Access::Write, "write")] {
        waiting
            .with_label_values(&[name])
            .set(load.turns.waiting(kind) as f64);
    }
    register(registry, waiting)?;
    let refused = IntCounterVec::new(
        Opts::new(
            "edge_sync_refused_total",
            "requests and connections that were beyond a limit",
        ),
        &["limit"],
    )?;
    let counts = &load.counts;
    for (limit, count) in [
        ("connections", &counts.connections),
        ("queue", &counts.queue),
        ("bodies", &counts.bodies),
        ("body_time", &counts.slow_bodies),
    ] {
        refused
            .with_label_values(&[limit])
            .inc_by(count.load(Ordering::Relaxed));
    }
    register(registry, refused)
}

/// Memory, threads, open files. The server calls its memory otherwise.
#[cfg(target_os = "linux")]
fn of_process() -> Vec<MetricFamily> {
    let process = prometheus::process_collector::ProcessCollector::for_self();
    let mut families = process.collect();
    let resident = families
        .iter()
        .find(|family| family.name() == "process_resident_memory_bytes")
        .cloned();
    families.extend(resident.map(|mut family| {
        family.set_name("memory_resident_bytes".to_owned());
        family
    }));
    families
}

#[cfg(not(target_os = "linux"))]
fn of_process() -> Vec<MetricFamily> {
    Vec::new()
}
