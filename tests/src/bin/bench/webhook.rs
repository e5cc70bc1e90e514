//! Objects written through the webhooks of a controller, at a steady rate: how long the API server takes for each, and for
//! the same objects without webhooks.
//!
//! A request counts from the moment at which it was due, so that one that had to wait for the one before counts in full.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use futures::future::join_all;
use kube::api::PostParams;
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, Client};
use serde_json::json;
use spiderpool_tests::control_plane::{ControlPlane, Options};
use spiderpool_tests::standalone_controller::{LABEL, StandaloneController, Start, webhook_configurations};

use crate::memory::{Memory, MemoryRows};
use crate::samples::{Pair, Report, Samples, Side};

const NAME: &str = "bench-webhook";
/// The API server has learned of the webhooks within so much time.
const CALLED: Duration = Duration::from_secs(20);

#[derive(Args)]
pub(crate) struct WebhookArguments {
    /// Objects a second.
    #[arg(long, default_value_t = 200)]
    rate: u32,
    /// Seconds of each round.
    #[arg(long, default_value_t = 10)]
    seconds: u32,
    /// Rounds, each with and without webhooks.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

pub(crate) fn measure(arguments: &WebhookArguments, report: &mut Report) -> Result<()> {
    let plane = ControlPlane::start(Options::default())?;
    let folder = tempfile::tempdir()?;
    tokio::runtime::Runtime::new()?.block_on(async {
        let environment = [("SPIDERPOOL_CONTROLLER_DEPLOYMENT_NAME", NAME), ("SPIDERPOOL_LOG_LEVEL", "info")];
        let start =
            Start { folder: folder.path(), namespace: "default", name: "bench", environment: &environment };
        let controller = StandaloneController::start(&plane, start).await?;
        for configuration in webhook_configurations(NAME, controller.webhook_port()?)? {
            plane.apply(&configuration.to_string())?;
        }
        let api = pools(plane.client().await?);
        wait_until_called(&api).await?;
        let (mut medians, mut tails, mut memory) = (Pair::default(), Pair::default(), MemoryRows::default());
        for _ in 0..arguments.rounds {
            for (side, label) in [(Side::Ours, NAME), (Side::Peer, "nobody")] {
                let samples = round(&api, label, arguments).await?;
                medians.side(side).push(samples.quantile(0.5).context("no sample")?);
                tails.side(side).push(samples.quantile(0.99).context("no sample")?);
            }
            memory.add(Side::Ours, Memory::of(controller.id())?);
        }
        let rate = arguments.rate;
        report.add(format!("{rate} pools/s, peer: no webhooks: median"), "ms", &medians);
        report.add(format!("{rate} pools/s, peer: no webhooks: p99"), "ms", &tails);
        memory.report(report, "controller's memory after");
        controller.stop()
    })
}

fn pools(client: Client) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("spiderpool.spidernet.io", "v2beta1", "SpiderIPPool");
    Api::all_with(client, &ApiResource::from_gvk_with_plural(&kind, "spiderippools"))
}

fn pool(name: &str, label: &str, subnet: &str) -> Result<DynamicObject> {
    Ok(serde_json::from_value(json!({
        "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderIPPool",
        "metadata": {"name": name, "labels": {LABEL: label}},
        "spec": {"subnet": subnet, "ips": ["10.1.0.2", "10.1.0.1"], "gateway": "10.1.255.254"},
    }))?)
}

async fn wait_until_called(api: &Api<DynamicObject>) -> Result<()> {
    let begun = Instant::now();
    let invalid = pool("invalid", NAME, "10.1.1.0/16")?;
    let parameters = PostParams { dry_run: true, ..PostParams::default() };
    while !matches!(api.create(&parameters, &invalid).await, Err(kube::Error::Api(status)) if status.code == 422)
    {
        ensure!(begun.elapsed() < CALLED, "the webhooks are not called");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// Not stored, so that the thousandth pool is no other than the first. The next one does not wait for the one before.
async fn round(api: &Api<DynamicObject>, label: &str, arguments: &WebhookArguments) -> Result<Samples> {
    let parameters = PostParams { dry_run: true, ..PostParams::default() };
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / arguments.rate);
    let mut requests = Vec::new();
    for number in 0..arguments.rate * arguments.seconds {
        let due = ticks.tick().await;
        let (api, parameters) = (api.clone(), parameters.clone());
        let pool = pool(&format!("p{number}"), label, "10.1.0.0/16")?;
        requests.push(tokio::spawn(async move {
            api.create(&parameters, &pool).await.map(|_| due.elapsed().as_secs_f64() * 1000.0)
        }));
    }
    let mut samples = Samples::default();
    for outcome in join_all(requests).await {
        samples.push(outcome??);
    }
    Ok(samples)
}
