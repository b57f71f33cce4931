//! Who may write: the names of a certificate, or the user of a process, against what the configuration says.

use crate::config::resolved::{Identity, San, Who};
use crate::fence::{Reason, Refusal, Resource, WriterId};
use crate::peer::Names;
use crate::protocol::Facts;

/// What a listener says of who may write.
#[derive(Clone, Debug, Default)]
pub struct Identities(Option<Vec<Identity>>);

impl Identities {
    /// As configured; `None`: anybody who reaches the listener.
    pub fn new(identities: Option<Vec<Identity>>) -> Identities {
        Identities(identities)
    }

    /// Whether nobody is asked who they are.
    pub fn takes_anybody(&self) -> bool {
        self.0.is_none()
    }

    /// Whether the sender of a request may write to `resource` as `writer`; where nobody is named yet, as anybody.
    ///
    /// # Errors
    /// The refusal.
    pub fn may_write(
        &self,
        facts: &Facts<'_>,
        writer: Option<&WriterId>,
        resource: &Resource,
    ) -> Result<(), Box<Refusal>> {
        let Some(identities) = &self.0 else { return Ok(()) };
        if identities.iter().any(|identity| fits(identity, facts, writer, resource)) {
            return Ok(());
        }
        let who = match facts.names {
            Some(names) => format!("a client whose certificate says {names}"),
            None => format!("the client {}", facts.peer),
        };
        let whom = writer.map(|writer| format!(" as {writer}")).unwrap_or_default();
        let detail = format!(
            "{who} may not write to {resource}{whom}; nothing was applied. Send it with this writer's own certificate, or add \
             the client to `identities` of the listener"
        );
        Err(Box::new(Refusal::new(Reason::IdentityRefused, detail).with_resource(resource).with_writer(writer)))
    }
}

fn fits(identity: &Identity, facts: &Facts<'_>, writer: Option<&WriterId>, resource: &Resource) -> bool {
    let own = |allowed: &Vec<Resource>| allowed.binary_search(resource).is_ok();
    if !identity.resources.as_ref().is_none_or(own) {
        return false;
    }
    match &identity.who {
        Who::User(uid) => facts.peer.uid() == Some(*uid) && is_allowed(identity, writer),
        Who::Named(san) => facts.names.is_some_and(|names| is_named(identity, san, names, writer)),
    }
}

/// Whether the identity's own word on writers lets this one pass.
fn is_allowed(identity: &Identity, writer: Option<&WriterId>) -> bool {
    identity.writer.is_none() || writer.is_none() || identity.writer.as_ref() == writer
}

fn is_named(identity: &Identity, san: &San, names: &Names, writer: Option<&WriterId>) -> bool {
    let all = if san.is_uri { &names.uris } else { &names.dns };
    is_allowed(identity, writer)
        && all.iter().any(|name| match &san.after {
            None => **name == *san.before,
            Some(after) => {
                let own = name.strip_prefix(&*san.before).and_then(|rest| rest.strip_suffix(&**after));
                own.and_then(|own| own.parse::<WriterId>().ok())
                    .is_some_and(|own| writer.is_none_or(|writer| own == *writer))
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::{Credentials, Peer};
    use crate::roles::testing::{Head, facts, orders};

    fn san(text: &str) -> Who {
        let (before, after) = text.split_once("{writer}").map_or((text, None), |(before, after)| (before, Some(after)));
        Who::Named(San::new(text.contains("://"), before, after))
    }

    fn allows(identities: &[Identity], peer: Option<u32>, names: Option<&Names>, writer: &str, resource: &str) -> bool {
        let head = Head::of(&[]);
        let mut facts = facts("PUT", "/a", &head, 0);
        facts.names = names;
        if let Some(uid) = peer {
            facts.peer = Peer::Unix(Credentials { uid, pid: None });
        }
        let writer: WriterId = writer.parse().expect("an id");
        let resource = resource.parse().expect("a resource");
        Identities::new(Some(identities.to_vec())).may_write(&facts, Some(&writer), &resource).is_ok()
    }

    fn names(dns: &[&str], uris: &[&str]) -> Names {
        let own = |all: &[&str]| all.iter().map(|name| (*name).into()).collect();
        Names { dns: own(dns), uris: own(uris) }
    }

    #[test]
    fn a_name_lets_its_own_writer_write_and_nobody_else() {
        let any = |who| Identity { who, writer: None, resources: None };
        let plain = [any(san("{writer}"))];
        let a = names(&["orders-a", "orders-a.orders.svc"], &["spiffe://prod/ns/orders/sa/orders-a"]);
        assert!(allows(&plain, None, Some(&a), "orders-a", "orders"));
        for writer in ["orders-b", "Orders-a", "orders-a.orders"] {
            assert!(!allows(&plain, None, Some(&a), writer, "orders"), "{writer}");
        }
        assert!(!allows(&plain, None, None, "orders-a", "orders"), "nobody showed a certificate");
        assert!(!allows(&[], None, Some(&a), "orders-a", "orders"), "nobody may");
        let spiffe = [any(san("spiffe://prod/ns/orders/sa/{writer}"))];
        assert!(allows(&spiffe, None, Some(&a), "orders-a", "orders"));
        let nested = names(&[], &["spiffe://prod/ns/orders/sa/x/orders-a", "spiffe://prod/ns/orders/sa/"]);
        assert!(!allows(&spiffe, None, Some(&nested), "orders-a", "orders"), "a writer is one segment");
        // A DNS name that looks like a URI is none, and the other way round.
        assert!(!allows(
            &spiffe,
            None,
            Some(&names(&["spiffe://prod/ns/orders/sa/orders-a"], &[])),
            "orders-a",
            "orders"
        ));
        assert!(!allows(&plain, None, Some(&names(&[], &["orders-a"])), "orders-a", "orders"));
    }

    #[test]
    fn a_fixed_name_and_a_user_write_as_the_writer_that_is_said() {
        let writer = Some("orders-a".parse().expect("an id"));
        let billing = Some(vec!["billing".parse().expect("a resource")]);
        let one = Identity { who: san("ingest.example"), writer: writer.clone(), resources: None };
        let ingest = names(&["ingest.example"], &[]);
        assert!(allows(std::slice::from_ref(&one), None, Some(&ingest), "orders-a", "orders"));
        assert!(!allows(std::slice::from_ref(&one), None, Some(&ingest), "orders-b", "orders"));
        assert!(!allows(&[one], None, Some(&names(&["ingest.example.evil"], &[])), "orders-a", "orders"));
        let user = Identity { who: Who::User(1001), writer, resources: billing };
        assert!(allows(std::slice::from_ref(&user), Some(1001), None, "orders-a", "billing"));
        assert!(!allows(std::slice::from_ref(&user), Some(1001), None, "orders-a", "orders"), "another resource");
        assert!(!allows(std::slice::from_ref(&user), Some(1002), None, "orders-a", "billing"), "another user");
        assert!(!allows(&[user], None, None, "orders-a", "billing"), "over TCP");
    }

    #[test]
    fn a_refusal_says_who_and_what_to_do() {
        let head = Head::of(&[]);
        let own = names(&["orders-b"], &[]);
        let facts = Facts { names: Some(&own), ..facts("PUT", "/a", &head, 0) };
        let writer: WriterId = "orders-a".parse().expect("an id");
        let refusal = Identities::new(Some(vec![])).may_write(&facts, Some(&writer), &orders()).expect_err("refused");
        assert_eq!(refusal.reason, Reason::IdentityRefused);
        for part in ["orders-b", "as orders-a", "identities"] {
            assert!(refusal.detail.contains(part), "{}", refusal.detail);
        }
        assert!(Identities::default().may_write(&facts, Some(&writer), &orders()).is_ok());
    }
}
