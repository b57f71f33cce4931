//! What is fenced.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The name of a resource: one to four segments `[a-z0-9][a-z0-9._-]{0,62}` joined by `/`, such as `orders` or
/// `orders/7`. Each has its own epoch. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Resource(Arc<str>);

impl Resource {
    /// The name as people write it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as it stands in a coordinator key: one segment, `/` written as `%2F`.
    pub fn to_key(&self) -> String {
        self.0.replace('/', "%2F")
    }

    /// The resource that a key segment names.
    ///
    /// # Errors
    /// Where the segment is not what [`Resource::to_key`] writes.
    pub fn from_key(segment: &str) -> Result<Resource, NotAResource> {
        segment.replace("%2F", "/").parse()
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text names no resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a resource is one to four segments of a-z, 0-9, '.', '_' and '-' (63 at most, the first a letter or digit) joined by '/'"
)]
pub struct NotAResource;

fn is_segment(segment: &str) -> bool {
    let bytes = segment.as_bytes();
    let plain = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    matches!(bytes.len(), 1..=63) && plain(&bytes[0]) && bytes.iter().all(|b| plain(b) || b"._-".contains(b))
}

impl FromStr for Resource {
    type Err = NotAResource;

    fn from_str(text: &str) -> Result<Resource, NotAResource> {
        let segments = text.split('/').count();
        if segments <= 4 && text.split('/').all(is_segment) { Ok(Resource(text.into())) } else { Err(NotAResource) }
    }
}

impl serde::Serialize for Resource {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for Resource {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Resource, D::Error> {
        let text = <std::borrow::Cow<'_, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_keys() {
        for good in ["orders", "orders/7", "a.b_c-d/0/1/2", &"a".repeat(63)] {
            let resource: Resource = good.parse().expect(good);
            assert_eq!(Resource::from_key(&resource.to_key()), Ok(resource));
        }
        for bad in ["", "/", "Orders", "a/", "/a", "a//b", "a/b/c/d/e", "-a", ".a", "a b", "a%2Fb", &"a".repeat(64)] {
            assert_eq!(bad.parse::<Resource>(), Err(NotAResource), "{bad:?}");
        }
    }
}
