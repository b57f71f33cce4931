//! The embedded coordinator keeps the contract that every store keeps.

mod support;

use std::sync::Arc;

use epochgate::clock::{HostClock, HostEntropy};
use epochgate::coordinator::embedded::Embedded;
use epochgate::coordinator::store::Store;

#[tokio::test]
async fn the_embedded_store_keeps_the_contract() {
    let folder = tempfile::tempdir().expect("a folder");
    let open = || -> Arc<dyn Store> {
        let path = folder.path().join("epochs.db");
        Embedded::open(&path, Arc::new(HostClock), Arc::new(HostEntropy)).expect("a folder of the test's own")
    };
    support::store_contract::run(open(), open()).await;
}
