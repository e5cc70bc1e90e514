//! Bodies of requests to the agent: what one of them says survives being written again.

use serde::Serialize;
use serde::de::DeserializeOwned;
use spiderpool_api::agent::coordinator::GetCoordinatorArgs;
use spiderpool_api::agent::dataplane::RegisterNics;
use spiderpool_api::agent::gc::GcArgs;
use spiderpool_api::agent::ipam::{IpamAddArgs, IpamBatchDelArgs, IpamDelArgs};

pub(crate) fn check(bytes: &[u8]) {
    round_trip::<IpamAddArgs>(bytes);
    round_trip::<IpamDelArgs>(bytes);
    round_trip::<IpamBatchDelArgs>(bytes);
    round_trip::<GcArgs>(bytes);
    round_trip::<RegisterNics>(bytes);
    round_trip::<GetCoordinatorArgs>(bytes);
}

fn round_trip<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    let Ok(body) = serde_json::from_slice::<T>(bytes) else { return };
    let written = serde_json::to_vec(&body).unwrap_or_else(|error| panic!("{body:?}: {error}"));
    match serde_json::from_slice::<T>(&written) {
        Ok(again) => assert_eq!(again, body),
        Err(error) => panic!("{body:?}: {error}"),
    }
}
