//! Every term that etcd has granted, from its own history.

use std::time::Duration;

use epochgate::coordinator::keys;
use epochgate::coordinator::records::{EpochRecord, from_value};
use epochgate::verify::Outside;
use etcd_client::{Client, EventType, WatchOptions};

use crate::support::sidecar::wait_for;
use crate::support::terms::orders;

const PREFIX: &str = "/epochgate/v1/";

/// Every grant since its first revision, in order. Nothing compacts it here.
pub fn all(urls: &[&str]) -> Vec<Outside> {
    wait_for(async {
        // On a busy machine a cluster that has just been well again may choose another leader in the middle of it.
        for _ in 0..10 {
            if let Ok(Ok(grants)) = tokio::time::timeout(Duration::from_secs(20), read(urls)).await {
                return grants;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        panic!("etcd does not say what it granted: {urls:?}")
    })
}

async fn read(urls: &[&str]) -> Result<Vec<Outside>, etcd_client::Error> {
    let mut client = Client::connect(urls, None).await?;
    let key = format!("{PREFIX}{}", keys::epoch(&orders()));
    let Some(last) = client.get(key.as_str(), None).await?.kvs().first().map(|kv| kv.mod_revision()) else {
        return Ok(Vec::new());
    };
    let mut watch = client.watch(key.as_str(), Some(WatchOptions::new().with_start_revision(1))).await?;
    let mut grants = Vec::new();
    while let Some(changes) = watch.message().await? {
        for change in changes.events() {
            let Some(kv) = change.kv().filter(|_| change.event_type() == EventType::Put) else { continue };
            let record: EpochRecord = from_value(kv.value()).expect("it is an epoch record");
            let term = record.term;
            let granted =
                Outside::Granted { resource: orders(), epoch: term.epoch, nonce: term.nonce, writer: term.writer };
            grants.push(granted);
            if kv.mod_revision() >= last {
                return Ok(grants);
            }
        }
    }
    Ok(grants)
}
