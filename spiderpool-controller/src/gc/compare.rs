//! The full comparison: everything is listed anew, apart from the watches, and what nothing uses is freed.

use kube::Api;
use spiderpool_api::crd::{SpiderEndpoint, SpiderIPAddress};
use spiderpool_api::pod::PodObject;
use spiderpool_runtime::kubernetes::Failure;
use spiderpool_runtime::shutdown::Shutdown;
use spiderpool_runtime::watch::{Index as _, Shared};
use tracing::{info, warn};

use super::act::Actor;
use crate::world::{SlimAddress, SlimEndpoint, SlimNode, SlimPod, Verdict, World, slim};

/// Compares at the configured interval until shutdown.
pub(super) async fn run(actor: Actor, shutdown: Shutdown) {
    while shutdown.sleep(actor.settings.interval).await {
        match compare(&actor, &shutdown).await {
            Ok(freed) => info!(looked_at = freed, "full comparison done"),
            Err(error) => warn!(%error, "the full comparison could not be done, the next one follows"),
        }
    }
}

/// How many pods something was done about.
async fn compare(actor: &Actor, shutdown: &Shutdown) -> Result<usize, Failure> {
    let world = Shared::new(list(actor).await?);
    let clock = actor.settings.clock();
    let wrong: Vec<_> = world.write(|world| {
        world.suspect_all();
        let pods = world.take_pods();
        let is_wrong = |verdict| matches!(verdict, Verdict::Free(_) | Verdict::WriteEndpoint);
        pods.into_iter().filter(|id| is_wrong(world.judge(id, clock))).collect()
    });
    let fresh = Actor { world, ..actor.clone() };
    for id in &wrong {
        if shutdown.is_requested() {
            break;
        }
        if let Err(error) = fresh.act(id).await {
            warn!(%error, "left to the watches");
        }
    }
    Ok(wrong.len())
}

/// Addresses first: a pod that is listed after its address was there has it rightly, or is gone.
async fn list(actor: &Actor) -> Result<World, Failure> {
    let client = actor.kube.client();
    let mut world = World::default();
    world.reset(actor.kube.pages(&Api::<SpiderIPAddress>::all(client.clone()), SlimAddress::from).await?);
    world.reset(actor.kube.pages(&Api::<SpiderEndpoint>::all(client.clone()), SlimEndpoint::from).await?);
    // A pod that is known and not listed has vanished, though the watch may not have said so yet.
    world.pods = actor.world.read(|known| known.pods.clone());
    world.reset(actor.kube.pages(&Api::<PodObject>::all(client.clone()), SlimPod::from).await?);
    world.reset(actor.kube.pages(&slim::nodes(client), SlimNode::from).await?);
    world.pools = actor.world.read(|known| known.pools.clone());
    Ok(world)
}
