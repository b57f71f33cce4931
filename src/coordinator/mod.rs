//! Where epochs live: elections, sessions and doors once, over a small store trait that etcd and the embedded
//! coordinator implement.

pub mod embedded;
pub mod etcd;
pub mod store;
