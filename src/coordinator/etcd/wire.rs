//! The store's words in etcd's, and back. Pure.

use etcd_client as etcd;
use etcd_client::{CompareOp, DeleteOptions, GetOptions, KeyValue, PutOptions, TxnOp};

use super::failure::Failure;
use crate::coordinator::store::{Change, Compare, Entry, Keys, LeaseId, Range, Revision, Txn};

/// How many conditions, how many changes, and how many ranges one request may hold: the default of etcd's
/// `--max-txn-ops`. Who has more sends several.
pub const MAX_TXN_OPS: usize = 128;

/// Refuses what etcd would refuse, or not say clearly.
pub(super) fn check_size(what: &str, count: usize) -> Result<(), String> {
    if count > MAX_TXN_OPS {
        return Err(format!("{count} {what} in one transaction; etcd takes {MAX_TXN_OPS}: send several"));
    }
    Ok(())
}

/// Every key of ours, as a read of nothing: what makes an otherwise empty transaction a linearizable read. etcd answers
/// a transaction without a request in it from the member at hand, however old that is.
fn anchor(prefix: &str) -> TxnOp {
    TxnOp::get(prefix, Some(GetOptions::new().with_prefix().with_count_only()))
}

fn get_options(range: &Range) -> GetOptions {
    let options = match range.keys {
        Keys::One(_) => GetOptions::new(),
        Keys::Under(_) => GetOptions::new().with_prefix(),
    };
    // Never serializable: that is what makes the answer linearizable.
    if range.since.0 > 0 { options.with_min_mod_revision(signed(range.since)) } else { options }
}

fn key_of(prefix: &str, range: &Range) -> String {
    let (Keys::One(key) | Keys::Under(key)) = &range.keys;
    format!("{prefix}{key}")
}

/// One range, for a request of its own.
pub(super) fn get(prefix: &str, range: &Range) -> (String, GetOptions) {
    (key_of(prefix, range), get_options(range))
}

/// Several ranges, for one transaction.
pub(super) fn gets(prefix: &str, ranges: &[Range]) -> etcd::Txn {
    let mut ops: Vec<TxnOp> =
        ranges.iter().map(|range| TxnOp::get(key_of(prefix, range), Some(get_options(range)))).collect();
    if ops.is_empty() {
        ops.push(anchor(prefix));
    }
    etcd::Txn::new().and_then(ops)
}

/// A transaction.
pub(super) fn txn(prefix: &str, txn: &Txn) -> etcd::Txn {
    let compares: Vec<etcd::Compare> = txn.compares.iter().map(|compare| self::compare(prefix, compare)).collect();
    let mut changes: Vec<TxnOp> = txn.changes.iter().map(|change| self::change(prefix, change)).collect();
    let request = etcd::Txn::new().when(compares);
    if changes.is_empty() {
        changes.push(anchor(prefix));
        request.and_then(changes).or_else([anchor(prefix)])
    } else {
        request.and_then(changes)
    }
}

/// A range without keys compares as one key of revision 0 (tried on 3.4.23 and 3.5.1), so "none above r" holds there.
fn compare(prefix: &str, compare: &Compare) -> etcd::Compare {
    let full = |key: &str| format!("{prefix}{key}");
    let above = |revision: Revision| signed(revision).saturating_add(1);
    match compare {
        Compare::Absent(key) => etcd::Compare::create_revision(full(key), CompareOp::Equal, 0),
        // Revision 0 is etcd's word for a key that does not exist; no key was ever put there.
        Compare::CreatedAt(key, at) => etcd::Compare::create_revision(full(key), CompareOp::Equal, existing(*at)),
        Compare::ModifiedAt(key, at) => etcd::Compare::mod_revision(full(key), CompareOp::Equal, existing(*at)),
        Compare::NoneModifiedAfter(under, at) => {
            etcd::Compare::mod_revision(full(under), CompareOp::Less, above(*at)).with_prefix()
        }
        Compare::NoneCreatedAfter(under, at) => {
            etcd::Compare::create_revision(full(under), CompareOp::Less, above(*at)).with_prefix()
        }
    }
}

fn change(prefix: &str, change: &Change) -> TxnOp {
    match change {
        Change::Put { key, value, lease } => {
            let options = lease.map(|lease| PutOptions::new().with_lease(lease.0));
            TxnOp::put(format!("{prefix}{key}"), value.clone(), options)
        }
        Change::Delete(key) => TxnOp::delete(format!("{prefix}{key}"), None::<DeleteOptions>),
    }
}

/// etcd counts in i64; nothing that it counts comes near its end.
pub(super) fn signed(revision: Revision) -> i64 {
    i64::try_from(revision.0).unwrap_or(i64::MAX)
}

fn existing(revision: Revision) -> i64 {
    // A key "created at 0" exists for nobody: -1 is equal to no revision.
    if revision.0 == 0 { -1 } else { signed(revision) }
}

fn revision(number: i64) -> Revision {
    Revision(u64::try_from(number).unwrap_or(0))
}

/// Entries without the prefix. A key that is not UTF-8 is none of ours, whoever put it there.
pub(super) fn entries(prefix: &str, found: Vec<KeyValue>) -> Vec<Entry> {
    found.into_iter().filter_map(|kv| entry(prefix, kv)).collect()
}

fn entry(prefix: &str, kv: KeyValue) -> Option<Entry> {
    let (created, modified) = (revision(kv.create_revision()), revision(kv.mod_revision()));
    let lease = Some(kv.lease()).filter(|lease| *lease != 0).map(LeaseId);
    let (key, value) = kv.into_key_value();
    Some(Entry { key: strip(prefix, &key)?, value, created, modified, lease })
}

/// A key of ours without the prefix.
pub(super) fn strip(prefix: &str, key: &[u8]) -> Option<String> {
    let rest = key.strip_prefix(prefix.as_bytes())?;
    String::from_utf8(rest.to_vec()).ok()
}

/// The answers to [`gets`], one list for each range.
pub(super) fn ranges(prefix: &str, asked: usize, answer: &etcd::TxnResponse) -> Result<Vec<Vec<Entry>>, Failure> {
    let found: Vec<Vec<Entry>> = answer
        .op_responses()
        .into_iter()
        .filter_map(|response| match response {
            etcd::TxnOpResponse::Get(mut range) => Some(entries(prefix, range.take_kvs())),
            _ => None,
        })
        .take(asked)
        .collect();
    if found.len() < asked {
        return Err(Failure::NoAnswer(format!("{} of {asked} ranges were answered: is it etcd?", found.len())));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_within_the_limit_passes_and_one_above_says_so() {
        assert_eq!(check_size("changes", MAX_TXN_OPS), Ok(()));
        let said = check_size("changes", MAX_TXN_OPS + 1).expect_err("refused");
        assert!(said.contains("129 changes") && said.contains("send several"), "{said}");
    }

    #[test]
    fn foreign_keys_are_none_of_ours() {
        assert_eq!(strip("/p/", b"/p/epochs/a"), Some("epochs/a".into()));
        assert_eq!(strip("/p/", b"/q/epochs/a"), None);
        assert_eq!(strip("/p/", b"/p/\xff"), None);
    }

    #[test]
    fn revisions_never_overflow() {
        assert_eq!(signed(Revision(u64::MAX)), i64::MAX);
        assert_eq!(existing(Revision(0)), -1);
        assert_eq!(revision(-3), Revision(0));
    }
}
