//! Whether the user of etcd may do what it needs to, and nothing else: what its password or certificate is worth to
//! somebody who steals it.

use std::sync::Arc;

use super::report::{Category, Finding};
use crate::clock::{HostClock, HostEntropy};
use crate::config::resolved::{Config, CoordinatorKind};
use crate::coordinator::etcd::{Access, Etcd};
use crate::coordinator::privileges::{Compared, KeyRange, Needs, Reach, Wide, compare};
use crate::coordinator::store::{Keys, StoreError};

/// Asks etcd; none where there is no etcd, or it gives no answer at all, which the coordinator's category says.
pub async fn look(config: &Config) -> Option<Category> {
    let CoordinatorKind::Etcd(etcd) = &config.coordinator.kind else { return None };
    let store = Etcd::new(&config.coordinator, etcd, Arc::new(HostClock), Arc::new(HostEntropy)).ok()?;
    let mut category = Category::new("etcd privileges");
    match store.access().await {
        Ok(access) => judge(&access, &Needs::of(config), &config.coordinator.prefix, &mut category),
        Err(StoreError::Denied(error)) => category.add(Finding::warning(
            format!("what may be done there cannot be told: {error}"),
            "etcd lets every user ask for its own roles; see that the login works",
        )),
        Err(_) => return None,
    }
    Some(category)
}

const PAGE: &str = "docs/etcd.md, Users and least privilege";

fn judge(access: &Access, needs: &Needs, prefix: &str, category: &mut Category) {
    let (name, roles, grants) = match access {
        Access::Open { by_certificate } => return category.add(open(by_certificate.as_deref())),
        Access::User { name, roles, grants } => (name, roles, grants),
    };
    if roles.iter().any(|role| role == "root") {
        return category.add(Finding::warning(
            format!("user {name} has the role root, and may do everything"),
            format!("whoever gets at its credentials owns etcd; make a user that may do what this needs ({PAGE})"),
        ));
    }
    let compared = compare(needs, prefix, grants);
    // A user without a role gets one first.
    let role = roles.first().map_or("ROLE", String::as_str);
    missing(name, role, prefix, &compared, category);
    for wide in &compared.wide {
        category.add(too_wide(wide));
    }
    if compared.reads && compared.missing.is_empty() && compared.wide.is_empty() {
        let roles = roles.join(", ");
        category.add(Finding::good(format!("user {name} ({roles}) may do what this needs, and nothing else")));
    }
}

fn open(by_certificate: Option<&str>) -> Finding {
    let what = match by_certificate {
        None => "authentication is off: whoever reaches etcd may mint epochs and declare doors dead".to_owned(),
        Some(name) => format!(
            "authentication is off, or {name}, whom the client certificate names, is root: it may mint any epoch, and \
             declare any door dead"
        ),
    };
    Finding::warning(what, format!("turn it on, with a user for each side ({PAGE})"))
}

fn missing(name: &str, role: &str, prefix: &str, compared: &Compared<'_>, category: &mut Category) {
    let command = |kind: &str, keys: &Keys| {
        let keys = KeyRange::of(prefix, keys).arguments();
        let grant = format!("etcdctl role grant-permission {role} {kind} {keys}");
        if role == "ROLE" {
            format!("it has no role: etcdctl role add ROLE; {grant}; etcdctl user grant-role {name} ROLE")
        } else {
            grant
        }
    };
    if !compared.reads {
        let whole = Keys::Under(String::new());
        category.add(Finding::bad(
            format!("user {name} may not read all of {prefix}"),
            format!("elections and guards read it as a whole: {}", command("read", &whole)),
        ));
    }
    for keys in &compared.missing {
        category.add(Finding::bad(
            format!("user {name} may not write {}", KeyRange::of(prefix, keys).words()),
            command("write", keys),
        ));
    }
}

fn too_wide(wide: &Wide<'_>) -> Finding {
    let (role, keys) = (&wide.grant.role, &wide.grant.keys);
    let revoke = format!("etcdctl role revoke-permission {role} {}", keys.arguments());
    if wide.writes.is_empty() {
        return Finding::warning(
            format!("role {role} lets it read {}, beyond its prefix", keys.words()),
            format!("grant what it needs ({PAGE}), then {revoke}"),
        );
    }
    let worth: Vec<&str> = wide.writes.iter().map(|reach| worth(*reach)).collect();
    Finding::warning(
        format!("role {role} lets it write {}, more than this configuration needs", keys.words()),
        format!("who gets at its credentials could {}; grant what it needs ({PAGE}), then {revoke}", worth.join(", ")),
    )
}

/// What a key that is not one's own is good for.
const fn worth(reach: Reach) -> &'static str {
    match reach {
        Reach::Epochs => "mint epochs",
        Reach::Leaders => "take a leader's place",
        Reach::Candidates => "stand in elections",
        Reach::Doors => "declare doors dead",
        Reach::Reports => "say that doors have drained",
        Reach::Foreign => "change keys that are none of epochgate's",
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::Verdict;
    use super::*;
    use crate::config::resolved::Role;
    use crate::coordinator::privileges::Grant;

    const PREFIX: &str = "/epochgate/v1/";

    fn grant(read: bool, write: bool, key: &str, end: &str) -> Grant {
        let keys = KeyRange::granted(key.as_bytes(), end.as_bytes());
        Grant { role: "guard-orders".into(), read, write, keys }
    }

    /// What is said of a guard's user with these grants.
    fn said(roles: &[&str], grants: Vec<Grant>) -> Vec<(Verdict, String)> {
        let roles = roles.iter().map(|&role| role.to_owned()).collect();
        let access = Access::User { name: "orders-guard".into(), roles, grants };
        let file = "resources: { orders: {} }\ncoordinator: { etcd: { endpoints: [\"http://127.0.0.1:2379\"] } }\n\
                    listeners: [{ name: orders-guard, role: guard, protocol: http, listen: 127.0.0.1:0, \
                    upstream: { url: \"http://127.0.0.1:9\" }, resource: orders }]\n";
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("epochgate.yaml");
        std::fs::write(&path, file).expect("written");
        let overrides = crate::config::Overrides { config: Some(path), ..Default::default() };
        let config = crate::config::load_from(&overrides, None).expect("it is right").config;
        assert!(matches!(config.listeners[0].role, Role::Guard(_)));
        let mut category = Category::new("etcd privileges");
        judge(&access, &Needs::of(&config), PREFIX, &mut category);
        category.findings().iter().map(|finding| (finding.verdict(), finding.words())).collect()
    }

    fn page() -> Vec<Grant> {
        vec![
            grant(true, false, "/epochgate/v1/", "/epochgate/v10"),
            grant(false, true, "/epochgate/v1/doors/orders/", "/epochgate/v1/doors/orders0"),
            grant(false, true, "/epochgate/v1/reports/orders/orders/", "/epochgate/v1/reports/orders/orders0"),
        ]
    }

    #[test]
    fn the_roles_of_the_page_pass() {
        let [(verdict, words)] = said(&["guard-orders"], page()).try_into().expect("one finding");
        assert_eq!(verdict, Verdict::Good);
        assert_eq!(words, "user orders-guard (guard-orders) may do what this needs, and nothing else; ");
    }

    #[test]
    fn a_guard_that_may_mint_is_warned_of_with_what_ends_it() {
        let mut grants = page();
        grants.push(grant(false, true, "/epochgate/v1/epochs/orders", ""));
        let [(verdict, words)] = said(&["guard-orders"], grants).try_into().expect("one finding");
        assert_eq!(verdict, Verdict::Warning);
        assert!(words.contains("could mint epochs;"), "{words}");
        let revoke = "etcdctl role revoke-permission guard-orders /epochgate/v1/epochs/orders";
        assert!(words.ends_with(revoke), "{words}");
        let [(verdict, words)] = said(&["root"], vec![]).try_into().expect("one finding");
        assert!(verdict == Verdict::Warning && words.contains("role root"), "{words}");
    }

    #[test]
    fn what_is_missing_fails_with_the_command_that_grants_it() {
        let found = said(&["guard-orders"], page()[..2].to_vec());
        let [(verdict, words)] = found.try_into().expect("one finding");
        assert_eq!(verdict, Verdict::Bad);
        let grants =
            "etcdctl role grant-permission guard-orders write --prefix=true /epochgate/v1/reports/orders/orders/";
        assert!(words.ends_with(grants), "{words}");
        let found = said(&[], vec![]);
        assert_eq!(found.len(), 3);
        assert!(found.iter().all(|(verdict, words)| *verdict == Verdict::Bad && words.contains("role add ROLE")));
    }

    #[test]
    fn an_open_door_is_warned_of() {
        assert!(open(None).words().contains("authentication is off: whoever"));
        assert!(open(Some("orders-guard")).words().contains("orders-guard, whom the client certificate names"));
    }
}
