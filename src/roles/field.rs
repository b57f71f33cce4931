//! The stamp's field as it stands in a request's head: found strictly, never guessed (FAULTS 27).

use crate::fence::stamp::Malformed;
use crate::protocol::Fields;

/// With more dashes than this in the field's name only the spelling with no dash at all is looked for.
const DASHES_MIXED: usize = 3;

/// The name of the stamp's field, and the names that some server behind us takes for it.
#[derive(Clone, Debug)]
pub struct StampField {
    name: Box<str>,
    look_alikes: Box<[Box<str>]>,
}

impl StampField {
    /// For the field `name`, in lower case.
    pub fn new(name: &str) -> StampField {
        StampField { name: name.into(), look_alikes: with_underscores(name) }
    }

    /// The field's name, in lower case.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the request has such a field, in any spelling.
    pub fn is_in(&self, fields: &dyn Fields) -> bool {
        fields.has(&self.name) || self.look_alikes.iter().any(|name| fields.has(name))
    }

    /// Reads the one field with `read`; `None` where there is none.
    ///
    /// # Errors
    /// What `read` says of the value; also where the field stands twice, stands under a name that some servers take
    /// for it, is named in `Connection` (a hop would take it off), or is announced as a trailer.
    pub fn collect<T>(
        &self,
        fields: &dyn Fields,
        mut read: impl FnMut(&[u8]) -> Result<T, Malformed>,
    ) -> Result<Option<T>, Malformed> {
        let mut found = None;
        fields.each(&self.name, &mut |value| {
            let twice = found.is_some();
            found = Some(if twice { Err(Malformed("the field stands more than once")) } else { read(value) });
        });
        let stamp = found.transpose()?;
        if self.look_alikes.iter().any(|name| fields.has(name)) {
            return Err(Malformed("the field stands with '_' in its name, which many servers take for '-'"));
        }
        if self.is_listed_in("connection", fields) {
            return Err(Malformed("the field is named in Connection, so a hop may have taken it off"));
        }
        if self.is_listed_in("trailer", fields) {
            return Err(Malformed("the field is announced as a trailer: it belongs into the head"));
        }
        Ok(stamp)
    }

    fn is_listed_in(&self, list: &str, fields: &dyn Fields) -> bool {
        let mut listed = false;
        fields.each(list, &mut |value| {
            let mut names = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
            listed |= names.any(|name| name.eq_ignore_ascii_case(self.name.as_bytes()));
        });
        listed
    }
}

/// Every spelling of `name` with `_` in place of at least one `-`.
fn with_underscores(name: &str) -> Box<[Box<str>]> {
    let dashes: Vec<usize> = name.match_indices('-').map(|(at, _)| at).collect();
    if dashes.is_empty() {
        return Box::default();
    }
    if dashes.len() > DASHES_MIXED {
        return [name.replace('-', "_").into_boxed_str()].into();
    }
    let spelling = |choice: usize| {
        let mut bytes = name.as_bytes().to_vec();
        for (nth, at) in dashes.iter().enumerate().filter(|(nth, _)| choice & (1 << nth) != 0) {
            debug_assert!(nth < dashes.len());
            bytes[*at] = b'_';
        }
        String::from_utf8_lossy(&bytes).into_owned().into_boxed_str()
    };
    (1..1 << dashes.len()).map(spelling).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::fence::Stamp;

    /// A head for tests: names in lower case, with their values in order.
    #[derive(Clone, Debug, Default)]
    pub(crate) struct Head(pub Vec<(String, Vec<u8>)>);

    impl Head {
        pub(crate) fn of(fields: &[(&str, &str)]) -> Head {
            Head(fields.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect())
        }
    }

    impl Fields for Head {
        fn each(&self, name: &str, each: &mut dyn FnMut(&[u8])) {
            self.0.iter().filter(|(own, _)| own == name).for_each(|(_, value)| each(value));
        }

        fn size(&self) -> usize {
            self.0.iter().map(|(name, value)| name.len() + value.len() + 4).sum()
        }
    }

    fn collect(fields: &[(&str, &str)]) -> Result<Option<u64>, Malformed> {
        let stamp = StampField::new("fencing-epoch").collect(&Head::of(fields), Stamp::parse)?;
        Ok(stamp.map(|stamp| stamp.epoch.number()))
    }

    #[test]
    fn exactly_one_field_is_a_stamp() {
        assert_eq!(collect(&[]), Ok(None));
        assert_eq!(collect(&[("fencing-epoch", "7"), ("connection", "close, x-fencing-epoch")]), Ok(Some(7)));
        for bad in [
            &[("fencing-epoch", "7"), ("fencing-epoch", "7")][..],
            &[("fencing-epoch", "7"), ("fencing-epoch", "8")],
            &[("fencing-epoch", "7"), ("fencing_epoch", "7")],
            &[("fencing_epoch", "7")],
            &[("fencing-epoch", "7"), ("connection", "close, Fencing-Epoch")],
            &[("connection", "keep-alive"), ("connection", "\tFENCING-EPOCH ")],
            &[("fencing-epoch", "7"), ("trailer", "fencing-epoch")],
            &[("trailer", "expires,Fencing-Epoch")],
            &[("fencing-epoch", "7,7")],
        ] {
            assert!(collect(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn every_mixed_spelling_is_known() {
        let names = with_underscores("x-my-epoch");
        assert_eq!(names.iter().map(|name| &**name).collect::<Vec<_>>(), ["x_my-epoch", "x-my_epoch", "x_my_epoch"]);
        assert!(with_underscores("epoch").is_empty());
        assert_eq!(with_underscores("a-b-c-d-e").len(), 1);
    }
}
