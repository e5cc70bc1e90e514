//! The metrics endpoint, what agent and controller say of themselves there, and the two shapes of duration that the
//! dashboards expect.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::health::Health;
use crate::kubernetes::Kubernetes;

/// Upper bounds, in seconds, of every duration histogram.
const BOUNDS: [f64; 9] = [0.1, 0.3, 0.5, 1.0, 3.0, 5.0, 7.0, 10.0, 15.0];

/// Serves the registry as text on any path.
pub fn router(registry: Arc<Registry>) -> Router {
    Router::new().fallback(answer).with_state(registry)
}

async fn answer(State(registry): State<Arc<Registry>>) -> Response {
    let mut text = String::new();
    match encode(&mut text, &registry) {
        Ok(()) => ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
            .into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// A registry with what every process says of itself: its version, whether it is ready, its requests to the API server.
pub fn registry(component: &'static str, health: &Health, kube: &Kubernetes) -> Registry {
    let mut registry = Registry::default();
    let build = Info::new([("component", component), ("version", env!("CARGO_PKG_VERSION"))]);
    registry.register("spiderpool_build", "Which program this is", build);
    registry.register_collector(Box::new(Readiness(health.clone())));
    kube.metrics().register(&mut registry);
    registry
}

/// What the probes say, read when it is asked for.
#[derive(Debug)]
struct Readiness(Health);

impl Collector for Readiness {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let ready = ConstGauge::new(i64::from(self.0.ready().is_ok()));
        let help = "1 while the process is ready, as its probe says";
        ready.encode(encoder.encode_descriptor("spiderpool_ready", help, None, MetricType::Gauge)?)?;
        let help = "1 while this holds, all of which readiness takes";
        let mut conditions =
            encoder.encode_descriptor("spiderpool_condition", help, None, MetricType::Gauge)?;
        for (name, holds) in self.0.conditions() {
            let holds = ConstGauge::new(i64::from(holds));
            holds.encode(conditions.encode_family(&[("condition", name)])?)?;
        }
        Ok(())
    }
}

#[derive(Debug, Default)]
struct Extremes {
    count: u64,
    sum: f64,
    min: f64,
    max: f64,
}

/// A duration as a histogram and as four gauges: average, maximum and minimum since start, and the latest one.
#[derive(Debug, Clone)]
pub struct Durations {
    histogram: Histogram,
    average: Gauge<f64, AtomicU64>,
    max: Gauge<f64, AtomicU64>,
    min: Gauge<f64, AtomicU64>,
    latest: Gauge<f64, AtomicU64>,
    extremes: Arc<Mutex<Extremes>>,
}

impl Durations {
    /// Registers `PREFIX_SUFFIX` and `PREFIX_{average,max,min,latest}_SUFFIX`.
    pub fn register(registry: &mut Registry, prefix: &str, suffix: &str, help: &str) -> Self {
        let durations = Self {
            histogram: Histogram::new(BOUNDS),
            average: Gauge::default(),
            max: Gauge::default(),
            min: Gauge::default(),
            latest: Gauge::default(),
            extremes: Arc::default(),
        };
        registry.register(format!("{prefix}_{suffix}"), help, durations.histogram.clone());
        for (part, gauge) in [
            ("average", &durations.average),
            ("max", &durations.max),
            ("min", &durations.min),
            ("latest", &durations.latest),
        ] {
            registry.register(format!("{prefix}_{part}_{suffix}"), format!("{help}, {part}"), gauge.clone());
        }
        durations
    }

    /// Counts one more.
    pub fn observe(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        self.histogram.observe(seconds);
        let mut extremes = self.extremes.lock().unwrap_or_else(PoisonError::into_inner);
        extremes.min = if extremes.count == 0 { seconds } else { extremes.min.min(seconds) };
        extremes.max = extremes.max.max(seconds);
        extremes.count += 1;
        extremes.sum += seconds;
        self.average.set(extremes.sum / extremes.count as f64);
        self.max.set(extremes.max);
        self.min.set(extremes.min);
        self.latest.set(seconds);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::Scope;

    #[test]
    fn what_the_probes_say_is_in_the_metrics() {
        let (health, mut registry) = (Health::default(), Registry::default());
        registry.register_collector(Box::new(Readiness(health.clone())));
        let watch = health.condition("watch of pods", Scope::Readiness);
        health.condition("own socket", Scope::Liveness).met();
        let read = || {
            let mut text = String::new();
            encode(&mut text, &registry).unwrap();
            let values = text.lines().filter(|line| !line.starts_with('#'));
            values.map(str::to_owned).collect::<Vec<_>>()
        };
        let socket = r#"spiderpool_condition{condition="own socket"} 1"#;
        let watch_of_pods = |holds| format!(r#"spiderpool_condition{{condition="watch of pods"}} {holds}"#);
        assert_eq!(read(), ["spiderpool_ready 0", socket, &watch_of_pods(0)]);
        watch.met();
        assert_eq!(read(), ["spiderpool_ready 1", socket, &watch_of_pods(1)]);
    }

    #[test]
    fn durations_show_as_the_dashboards_name_them() {
        let mut registry = Registry::default();
        let durations = Durations::register(
            &mut registry,
            "spiderpool_ipam_release",
            "duration_seconds",
            "Time of a release",
        );
        durations.observe(Duration::from_millis(500));
        durations.observe(Duration::from_millis(1500));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            "spiderpool_ipam_release_average_duration_seconds 1.0",
            "spiderpool_ipam_release_max_duration_seconds 1.5",
            "spiderpool_ipam_release_min_duration_seconds 0.5",
            "spiderpool_ipam_release_latest_duration_seconds 1.5",
            "spiderpool_ipam_release_duration_seconds_bucket{le=\"0.5\"} 1",
            "spiderpool_ipam_release_duration_seconds_count 2",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
        }
    }
}
