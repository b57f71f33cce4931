//! How every endpoint is, for `epochgate check`.

use std::time::Duration;

use etcd_client::GetOptions;
use futures_util::future::join_all;
use tokio::time::{Instant, timeout_at};

use super::endpoints::{Endpoints, Link};
use super::failure::{Failure, with_hint};

/// One endpoint, as a connection of its own found it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointHealth {
    /// The URL.
    pub endpoint: String,
    /// The member's version, where it could be asked.
    pub version: Option<String>,
    /// How long a linearizable read took, over the finished connection.
    pub latency: Option<Duration>,
    /// What is wrong, with what to do about it: the connection, the login, no leader, or no right to read the prefix.
    pub error: Option<String>,
}

/// Asks all endpoints at once, each within the time limit of a call.
pub(super) async fn probe(endpoints: &Endpoints) -> Vec<EndpointHealth> {
    join_all((0..endpoints.len()).map(|endpoint| one(endpoints, endpoint))).await
}

async fn one(endpoints: &Endpoints, endpoint: usize) -> EndpointHealth {
    let deadline = Instant::now() + endpoints.settings.timeout;
    let mut health =
        EndpointHealth { endpoint: endpoints.url(endpoint).to_owned(), version: None, latency: None, error: None };
    let silent = || with_hint(format!("no answer within {} ms", endpoints.settings.timeout.as_millis()));
    // A connection of its own: what is to be found out is how a new one goes.
    let link = match timeout_at(deadline, endpoints.connect(endpoint)).await {
        Ok(Ok(link)) => link,
        Ok(Err(failure)) => {
            health.error = Some(failure.text().to_owned());
            return health;
        }
        Err(_) => {
            health.error = Some(silent());
            return health;
        }
    };
    health.version = Some(link.version.to_string());
    let asked = Instant::now();
    match timeout_at(deadline, read(endpoints, link)).await {
        Ok(Ok(())) => health.latency = Some(asked.elapsed()),
        Ok(Err(failure)) => health.error = Some(failure.text().to_owned()),
        Err(_) => health.error = Some(silent()),
    }
    health
}

/// A linearizable read of the whole prefix, without its keys.
async fn read(endpoints: &Endpoints, link: Link) -> Result<(), Failure> {
    let all = GetOptions::new().with_prefix().with_count_only();
    let answer = link.client.kv_client().get(endpoints.settings.prefix.as_str(), Some(all)).await?;
    endpoints.header(&link, answer.header()).map(|_| ())
}
