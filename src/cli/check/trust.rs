//! Certificates and keys: are they fit, for how long, and is anybody asked who it is?

use jiff::Timestamp;

use super::report::{Category, Finding};
use crate::config::resolved::{Config, CoordinatorKind, Etcd, ListenAt, Listener, Role};
use crate::fence::WriterId;
use crate::peer::Names;
use crate::tls::{self, Expiry};

/// Certificates that end sooner are warned of.
const SOON_DAYS: i64 = 14;

/// What the files say as of now; `None` where no listener has TLS, or is reached from elsewhere.
pub fn look(config: &Config) -> Option<Category> {
    look_at(config, Timestamp::now())
}

fn look_at(config: &Config, now: Timestamp) -> Option<Category> {
    let mut findings = Vec::new();
    if let CoordinatorKind::Etcd(Etcd { tls: Some(tls), .. }) = &config.coordinator.kind {
        findings.extend(told("etcd", tls::look_at_etcd(tls, now), now));
    }
    for listener in &config.listeners {
        let sides = tls::load(listener, now);
        let names = sides.as_ref().ok().and_then(|sides| sides.own_names.clone());
        findings.extend(told(&listener.name, sides.map(|sides| sides.expiries), now));
        findings.extend(of_link(listener));
        findings.extend(names.and_then(|names| of_names(listener, &config.id, &names)));
    }
    (!findings.is_empty()).then(|| {
        let mut category = Category::new("trust");
        findings.into_iter().for_each(|finding| category.add(finding));
        category
    })
}

fn told(whose: &str, found: Result<Vec<Expiry>, Vec<tls::Problem>>, now: Timestamp) -> Vec<Finding> {
    match found {
        Err(problems) => problems.into_iter().map(|problem| Finding::bad(problem.what, problem.help)).collect(),
        Ok(expiries) => expiries.iter().map(|expiry| of_expiry(whose, expiry, now)).collect(),
    }
}

fn of_expiry(listener: &str, expiry: &Expiry, now: Timestamp) -> Finding {
    let days = expiry.until.duration_since(now).as_hours() / 24;
    let what = format!(
        "{listener}: the {} certificate holds for {days} day{}, until {}",
        expiry.usage.as_str(),
        if days == 1 { "" } else { "s" },
        expiry.until.strftime("%F")
    );
    match days {
        ..SOON_DAYS => Finding::warning(what, "renew it: a running process takes new files up by itself"),
        _ => Finding::good(what),
    }
}

/// What to say of a listener that is reached by others and does not know its clients.
fn of_link(listener: &Listener) -> Option<Finding> {
    let open = match &listener.listen {
        ListenAt::Tcp(address) => !address.ip().is_loopback(),
        ListenAt::Unix(_) => listener.socket_mode & 0o006 != 0,
    };
    if !open || listener.identities.is_some() {
        return None;
    }
    let (name, at) = (&listener.name, &listener.listen);
    Some(match &listener.role {
        Role::Guard(_) => Finding::warning(
            format!("{name}: whoever reaches {at} may send any writer's stamp"),
            "a stamp is no secret: say with identities who may write (docs/tls.md), or let nobody but the stamps reach it",
        ),
        Role::Stamp(_) => Finding::warning(
            format!("{name}: whoever reaches {at} writes as this writer"),
            "let it listen on 127.0.0.1 or at a unix socket, or say with identities who may write (docs/tls.md)",
        ),
    })
}

/// What to say of a stamp whose certificate is another writer's: a guard that was told nothing else refuses its writes.
fn of_names(listener: &Listener, id: &WriterId, names: &Names) -> Option<Finding> {
    let named = names.dns.iter().any(|name| **name == *id.as_str());
    (matches!(listener.role, Role::Stamp(_)) && !named).then(|| {
        Finding::warning(
            format!("{}: its certificate names {names}, and this writer is {id}", listener.name),
            "a guard whose identities say nothing else takes no write of it (403): show a certificate with the writer's id as \
             DNS name, in small letters, or say at the guard whose it is",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::report::Verdict;
    use super::*;
    use crate::tls::Usage;

    #[test]
    fn what_ends_soon_is_warned_of() {
        let now: Timestamp = "2026-11-22T00:00:00Z".parse().expect("a time");
        let told = |until: &str| {
            let until = until.parse().expect("a time");
            of_expiry("orders-guard", &Expiry { usage: Usage::Server, until }, now)
        };
        let soon = told("2026-12-05T00:00:00Z");
        assert_eq!(soon.verdict(), Verdict::Warning);
        assert!(soon.words().contains("13 days, until 2026-12-05"), "{}", soon.words());
        assert_eq!(told("2026-12-06T00:00:00Z").verdict(), Verdict::Good);
    }

    #[test]
    fn who_reaches_a_listener_and_what_its_certificate_names_it() {
        let load = |text: &str| {
            let text = format!(
                "id: orders-a\ncoordinator: {{ embedded: ./e }}\nresources: {{ orders: {{}} }}\nlisteners: [{text}]\n"
            );
            let file = Some((std::path::Path::new("f.yaml"), text.as_str()));
            crate::config::load(file, &Default::default(), None).expect("it is right").config
        };
        let rest = "resource: orders, upstream: { url: \"http://a\" }";
        let said = |role: &str, more: &str| {
            let config = load(&format!("{{ name: l, role: {role}, {rest}, {more} }}"));
            of_link(&config.listeners[0]).map(|finding| finding.words()).unwrap_or_default()
        };
        assert!(said("guard", "listen: \":1\"").contains("any writer's stamp"));
        assert!(said("stamp", "listen: \":1\"").contains("as this writer"));
        assert!(said("guard", "listen: \"unix:/a\", socket_mode: \"0666\"").contains("unix:/a"));
        for quiet in [
            "listen: \"127.0.0.1:1\"",
            "listen: \"unix:/a\"",
            "listen: \"unix:/a\", socket_mode: \"0666\", identities: [{ uid: 1, writer: a }]",
        ] {
            assert_eq!(said("guard", quiet), "", "{quiet}");
        }
        let config = load(&format!("{{ name: l, role: stamp, {rest}, listen: \"127.0.0.1:1\" }}"));
        let named = |name: &str| {
            let names = Names { dns: vec![name.into()], uris: vec![] };
            of_names(&config.listeners[0], &config.id, &names).is_some()
        };
        assert!(named("orders-b") && !named("orders-a"));
    }
}
