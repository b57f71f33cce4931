//! Where epochs live: elections, sessions and doors once, over a small store trait that etcd and the embedded
//! coordinator implement.

pub mod agreement;
pub mod doors;
pub mod election;
pub mod embedded;
pub mod etcd;
pub mod fencing;
pub mod keys;
pub mod observer;
pub mod privileges;
pub mod records;
pub mod session;
pub mod store;
