//! Whether the coordinator can be used.

use std::path::Path;
use std::sync::Arc;

use super::super::paint::plain;
use super::report::{Category, Finding};
use super::state_dir::nearest;
use crate::clock::{HostClock, HostEntropy};
use crate::config::resolved::{Config, CoordinatorKind};
use crate::coordinator::embedded::Embedded;
use crate::coordinator::etcd::{EndpointHealth, Etcd};
use crate::coordinator::store::{Keys, Range, Store as _};

/// Asks every endpoint of etcd, or looks at the embedded store.
pub async fn look(config: &Config) -> Category {
    let mut category = Category::new("coordinator");
    match &config.coordinator.kind {
        CoordinatorKind::Etcd(etcd) => {
            match Etcd::new(&config.coordinator, etcd, Arc::new(HostClock), Arc::new(HostEntropy)) {
                Ok(etcd) => asked(&etcd.probe().await, &config.coordinator.prefix, &mut category),
                Err(error) => {
                    category.add(Finding::bad(format!("etcd cannot be used: {error}"), "see coordinator.etcd"))
                }
            }
        }
        CoordinatorKind::Embedded(path) => category.add(embedded(path).await),
    }
    category
}

/// One finding an endpoint; that one is away is a warning while others answer.
fn asked(endpoints: &[EndpointHealth], prefix: &str, category: &mut Category) {
    let healthy = endpoints.iter().filter(|endpoint| endpoint.error.is_none()).count();
    for endpoint in endpoints {
        let url = &endpoint.endpoint;
        let version =
            endpoint.version.as_deref().map(|version| format!(" (etcd {})", plain(version))).unwrap_or_default();
        category.add(match (&endpoint.error, endpoint.latency) {
            (None, latency) => {
                let took = latency.map(|took| format!(" in {:.1} ms", took.as_secs_f64() * 1000.0)).unwrap_or_default();
                Finding::good(format!("{url}{version} answers{took}, and lets {prefix} be read"))
            }
            (Some(error), _) if healthy > 0 => Finding::warning(
                format!("{url}{version}: {error}"),
                "the others are used meanwhile; with one more away there may be no elections",
            ),
            (Some(error), _) => Finding::bad(
                format!("{url}{version}: {error}"),
                "without the coordinator nobody is elected; a guard goes on with the epoch that it has, as configured",
            ),
        });
    }
}

/// Reads a store that is there; makes none.
async fn embedded(path: &Path) -> Finding {
    let shown = path.display();
    if !path.exists() {
        let above = nearest(path);
        return if rustix::fs::access(above, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK).is_ok() {
            Finding::good(format!(
                "embedded: {shown} is made at the first start; all processes of this host are to name it"
            ))
        } else {
            Finding::bad(
                format!("embedded: {shown} cannot be made: {} cannot be written", above.display()),
                "name another path with --embedded, or allow it",
            )
        };
    }
    let read = match Embedded::open(path, Arc::new(HostClock), Arc::new(HostEntropy)) {
        Ok(store) => store.read(vec![Range::all(Keys::Under(String::new()))]).await.map(|snapshot| snapshot.revision),
        Err(error) => Err(error),
    };
    match read {
        Ok(revision) => Finding::good(format!("embedded: {shown} can be used, at revision {revision}")),
        Err(error) => Finding::bad(
            format!("embedded: {shown} cannot be used: {error}"),
            "name a folder of this host with --embedded; it serves the processes of one host only",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::Verdict;
    use super::*;
    use std::time::Duration;

    fn health(error: Option<&str>) -> EndpointHealth {
        EndpointHealth {
            endpoint: "http://127.0.0.1:2379".into(),
            version: Some("3.5.1".into()),
            latency: error.is_none().then_some(Duration::from_micros(1500)),
            error: error.map(Into::into),
        }
    }

    fn found(endpoints: &[EndpointHealth]) -> Vec<Finding> {
        let mut category = Category::new("coordinator");
        asked(endpoints, "/epochgate/v1/", &mut category);
        category.findings().to_vec()
    }

    #[test]
    fn one_endpoint_that_is_away_is_a_warning_and_all_are_a_failure() {
        let findings = found(&[health(None), health(Some("connection refused"))]);
        assert_eq!(
            findings[0].words(),
            "http://127.0.0.1:2379 (etcd 3.5.1) answers in 1.5 ms, and lets /epochgate/v1/ be read; "
        );
        assert_eq!(findings[1].verdict(), Verdict::Warning);
        assert_eq!(found(&[health(Some("permission denied"))])[0].verdict(), Verdict::Bad);
    }

    #[test]
    fn an_embedded_store_is_read_and_never_made() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("epochs");
        let look = |path: &Path| super::super::super::block_on(embedded(path));
        assert_eq!(look(&path).verdict(), Verdict::Good);
        assert!(!path.exists(), "looking made it");
        Embedded::open(&path, Arc::new(HostClock), Arc::new(HostEntropy)).expect("a store");
        assert_eq!(look(&path).verdict(), Verdict::Good);
        let file = folder.path().join("file");
        std::fs::write(&file, "x").expect("a file");
        assert_eq!(look(&file).verdict(), Verdict::Bad);
    }
}
