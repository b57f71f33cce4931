//! What is fuzzed, by who wrote the bytes.
//!
//! | file | what is read |
//! |---|---|
//! | [`stamps`] | from clients: the stamp's field, names, the field among others |
//! | [`requests`] | from clients: paths and rules, heads from one hop to the next |
//! | [`wire`] | from clients: HTTP/1 messages as bytes, through the whole proxy |
//! | [`streams`] | from clients: HTTP/2 requests, through the whole proxy to HTTP/1.1 |
//! | [`redis`] | from clients and servers: Redis' requests and replies |
//! | [`sessions`] | from clients and sidecars: what a session begins with |
//! | [`postgres`] | from clients and servers: PostgreSQL's startup messages, and what passes in a session |
//! | [`trust`] | from clients: the first bytes of a session, certificates; names of both in the configuration |
//! | [`records`] | from the coordinator: keys and values |
//! | [`disks`] | from the disk: floor file, the embedded store's revisions |
//! | [`manifests`] | from people: manifests of Kubernetes |
//! | [`texts`] | from people: configuration, rules, durations; histories |

mod disks;
mod manifests;
mod postgres;
mod records;
mod redis;
mod requests;
mod sessions;
mod stamps;
mod streams;
mod texts;
mod trust;
mod wire;

/// The text in the input, where it is one.
fn text(input: &[u8]) -> Option<&str> {
    std::str::from_utf8(input).ok()
}
