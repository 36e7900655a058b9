//! How often one address may try to be paired: ten at once, one more every six seconds. Success costs nothing. The table
//! is bounded; when it is full, the address that has tried the least lately is forgotten.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

use tokio::time::Instant;

/// Attempts at once.
const BURST: f64 = 10.0;
/// Attempts per second from then on.
const RATE: f64 = 1.0 / 6.0;
/// Addresses remembered.
const ADDRESSES: usize = 4096;

/// What each address has left.
#[derive(Debug, Default)]
pub(super) struct Budget {
    left: HashMap<IpAddr, (f64, Instant)>,
}

/// One household has one IPv6 network of 64 bits, and all the addresses in it.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from(u128::from(address) >> 64 << 64)),
        v4 => v4,
    }
}

fn now_left((left, since): (f64, Instant), now: Instant) -> f64 {
    (left + now.duration_since(since).as_secs_f64() * RATE).min(BURST)
}

impl Budget {
    /// Takes one attempt, if any is left.
    pub(super) fn take(&mut self, address: IpAddr) -> bool {
        let (address, now) = (network(address), Instant::now());
        if self.left.len() >= ADDRESSES && !self.left.contains_key(&address) {
            self.forget(now);
        }
        let left = self.left.get(&address).map_or(BURST, |entry| now_left(*entry, now));
        let allowed = left >= 1.0;
        self.left.insert(address, (if allowed { left - 1.0 } else { left }, now));
        allowed
    }

    /// Gives one back: it was no guess.
    pub(super) fn give_back(&mut self, address: IpAddr) {
        if let Some((left, _)) = self.left.get_mut(&network(address)) {
            *left += 1.0;
        }
    }

    fn forget(&mut self, now: Instant) {
        self.left.retain(|_, entry| now_left(*entry, now) < BURST);
        if self.left.len() >= ADDRESSES {
            let most = self.left.iter().max_by(|one, other| now_left(*one.1, now).total_cmp(&now_left(*other.1, now)));
            if let Some(address) = most.map(|(address, _)| *address) {
                self.left.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn an_address_that_keeps_trying_has_to_wait() {
        let (mut budget, one) = (Budget::default(), IpAddr::from([192, 0, 2, 1]));
        assert_eq!((0..12).filter(|_| budget.take(one)).count(), 10);
        assert!(budget.take(IpAddr::from([192, 0, 2, 2])), "others are not held up");
        tokio::time::advance(Duration::from_secs(13)).await;
        assert_eq!((0..12).filter(|_| budget.take(one)).count(), 2);
        budget.give_back(one);
        assert!(budget.take(one) && !budget.take(one));
    }

    #[tokio::test(start_paused = true)]
    async fn an_ipv6_network_is_one_and_the_table_stays_bounded() {
        let mut budget = Budget::default();
        let host = |net: u16, host: u16| IpAddr::from([0x2001, 0xdb8, 0, net, 0, 0, 0, host]);
        assert_eq!((0..20).filter(|at| budget.take(host(1, *at))).count(), 10);
        for net in 2..6000 {
            budget.take(host(net, 1));
        }
        assert!(budget.left.len() <= ADDRESSES);
        assert!(!budget.take(host(1, 9)), "who has tried the most is not forgotten");
    }
}
