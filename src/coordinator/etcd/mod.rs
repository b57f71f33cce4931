//! etcd behind the store trait.
