//! How many connections of the admin side one address may have: whoever can reach it must not keep others from looking,
//! a liveness probe least of all.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// Connections of each address that has any.
#[derive(Clone, Debug, Default)]
pub(super) struct Guests {
    count: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// One connection; dropping it makes room.
#[derive(Debug)]
pub(super) struct Guest {
    guests: Guests,
    address: IpAddr,
}

impl Guests {
    /// One more connection of `address`, unless it has `most` already.
    pub fn admit(&self, address: IpAddr, most: usize) -> Option<Guest> {
        // The same host by both of its names.
        let address = address.to_canonical();
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        let have = count.entry(address).or_default();
        if *have >= most {
            return None;
        }
        *have += 1;
        Some(Guest { guests: self.clone(), address })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut count = self.guests.count.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(have) = count.get_mut(&self.address) {
            *have -= 1;
            if *have == 0 {
                count.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_its_own_room_and_leaves_nothing_behind() {
        let guests = Guests::default();
        let address = |text: &str| text.parse().expect("an address");
        let first = guests.admit(address("10.0.0.1"), 2);
        let second = guests.admit(address("::ffff:10.0.0.1"), 2);
        assert!(first.is_some() && second.is_some());
        assert!(guests.admit(address("10.0.0.1"), 2).is_none(), "by either name");
        assert!(guests.admit(address("10.0.0.2"), 2).is_some());
        drop(first);
        assert!(guests.admit(address("10.0.0.1"), 2).is_some());
        drop(second);
        assert!(guests.count.lock().expect("nobody panicked").is_empty());
    }
}
