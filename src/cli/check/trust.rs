//! Certificates and keys: are they fit, for how long, and is anybody asked who it is?

use jiff::Timestamp;

use super::report::{Category, Finding};
use crate::config::resolved::{Config, ListenAt, Listener, Role};
use crate::tls::{self, Expiry};

/// Certificates that end sooner are warned of.
const SOON_DAYS: i64 = 14;

/// What the files say as of now; `None` where no listener has TLS, or is reached from elsewhere.
pub fn look(config: &Config) -> Option<Category> {
    look_at(config, Timestamp::now())
}

fn look_at(config: &Config, now: Timestamp) -> Option<Category> {
    let mut category = Category::new("trust");
    let mut any = false;
    for listener in &config.listeners {
        for finding in of_files(listener, now).into_iter().chain(of_link(listener)) {
            category.add(finding);
            any = true;
        }
    }
    any.then_some(category)
}

fn of_files(listener: &Listener, now: Timestamp) -> Vec<Finding> {
    match tls::load(listener, now) {
        Err(problems) => problems.into_iter().map(|problem| Finding::bad(problem.what, problem.help)).collect(),
        Ok(sides) => sides.expiries.iter().map(|expiry| of_expiry(&listener.name, expiry, now)).collect(),
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

/// What to say of a guard that is reached from other hosts and does not know its clients.
fn of_link(listener: &Listener) -> Option<Finding> {
    let (Role::Guard(_), ListenAt::Tcp(address)) = (&listener.role, &listener.listen) else { return None };
    let knows = listener.identities.is_some();
    (!knows && !address.ip().is_loopback()).then(|| {
        Finding::warning(
            format!("{}: whoever reaches {address} may send any writer's stamp", listener.name),
            "a stamp is no secret: add tls with client_ca, or let nobody but the stamps reach it (docs/tls.md)",
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
}
