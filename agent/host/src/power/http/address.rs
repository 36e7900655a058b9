//! Which addresses a pack's request may be connected to. Whatever is not plain public unicast is refused unless the owner names it:
//! an address or a network for what is private, each address by itself for the cloud's metadata services, whose answers are
//! credentials. An IPv6 address that carries an IPv4 one (a translator's, a tunnel's) is judged as both.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// An address, or all of a network: `10.0.0.5`, `192.168.7.0/24`, `fd00::/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    /// One address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        Network { address, bits: width(address) }
    }

    /// Reads an address or a network.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{}` is neither an address nor a network such as 192.168.7.0/24", text.escape_debug());
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let Some(bits) = bits else { return Ok(Network::of(address)) };
        let bits = bits.parse().ok().filter(|bits| *bits <= width(address)).ok_or_else(wrong)?;
        let first = first(address, bits);
        if first != address {
            return Err(format!("`{text}` is inside of a network; the network is {first}/{bits}"));
        }
        Ok(Network { address, bits })
    }

    /// Whether an address is in it. IPv4 addresses are in IPv4 networks only.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4() && first(address, self.bits) == self.address
    }

    /// Whether it is this one address.
    fn is_only(&self, address: IpAddr) -> bool {
        self.address == address && self.bits == width(address)
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The first address of the network of so many bits that an address is in.
fn first(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            Ipv4Addr::from_bits(address.to_bits() & mask).into()
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            Ipv6Addr::from_bits(address.to_bits() & mask).into()
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.bits == width(self.address) { self.address.fmt(f) } else { write!(f, "{}/{}", self.address, self.bits) }
    }
}

impl TryFrom<String> for Network {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        Network::parse(&text)
    }
}

impl From<Network> for String {
    fn from(network: Network) -> String {
        network.to_string()
    }
}

/// Why an address is refused: the one to name, which may be carried in the other, and what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) address: IpAddr,
    pub(super) what: &'static str,
}

/// Judges an address. `named` is what the owner named.
pub(super) fn judge(address: IpAddr, named: &[Network]) -> Result<(), Refused> {
    if METADATA.contains(&address) {
        let one_by_one = named.iter().any(|network| network.is_only(address));
        return if one_by_one { Ok(()) } else { Err(Refused { address, what: "the address of a cloud's metadata service" }) };
    }
    if let Some(what) = special(address)
        && !named.iter().any(|network| network.contains(address))
    {
        return Err(Refused { address, what });
    }
    match carried(address) {
        Some(inner) => judge(inner.into(), named),
        None => Ok(()),
    }
}

const fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

const fn v6(head: [u16; 4], tail: [u16; 4]) -> IpAddr {
    let ([a, b, c, d], [e, f, g, h]) = (head, tail);
    IpAddr::V6(Ipv6Addr::new(a, b, c, d, e, f, g, h))
}

/// Where clouds hand a machine's own credentials to whoever asks from it.
const METADATA: [IpAddr; 12] = [
    // Amazon, Google, Azure, DigitalOcean, OpenStack, Oracle and most others; then Amazon's and Google's over IPv6.
    v4(169, 254, 169, 254),
    v6([0xfd00, 0xec2, 0, 0], [0, 0, 0, 0x254]),
    v6([0xfd20, 0xce, 0, 0], [0, 0, 0, 0x254]),
    v6([0xfe80, 0, 0, 0], [0, 0, 0xa9fe, 0xa9fe]),
    // Amazon's for containers and pods.
    v4(169, 254, 170, 2),
    v4(169, 254, 170, 23),
    v6([0xfd00, 0xec2, 0, 0], [0, 0, 0, 0x23]),
    // Alibaba, Oracle's older one, Tencent, Scaleway; Azure's wire server has a public address.
    v4(100, 100, 100, 200),
    v4(192, 0, 0, 192),
    v4(169, 254, 0, 23),
    v4(169, 254, 42, 42),
    v4(168, 63, 129, 16),
];

/// Host names of such services, which a pattern never covers.
const METADATA_NAMES: [&str; 8] = [
    "metadata",
    "metadata.google.internal",
    "metadata.goog",
    "instance-data",
    "instance-data.ec2.internal",
    "metadata.tencentyun.com",
    "metadata.platformequinix.com",
    "metadata.packet.net",
];

/// Whether a host's name is that of a metadata service.
pub(super) fn is_metadata_name(name: &str) -> bool {
    METADATA_NAMES.contains(&name)
}

/// What an address is when it is not plain public unicast: IANA's special-purpose registries, in words.
fn special(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => special_v4(address),
        IpAddr::V6(address) => special_v6(address),
    }
}

fn special_v4(address: Ipv4Addr) -> Option<&'static str> {
    Some(match address.octets() {
        [0, ..] => "an unspecified address",
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => "a private address",
        [127, ..] => "this machine's own address",
        [100, 64..=127, ..] => "a carrier's internal address",
        [169, 254, ..] => "a link-local address",
        [192, 0, 0, _] | [192, 88, 99, _] | [192, 31, 196, _] | [192, 52, 193, _] | [192, 175, 48, _] => "an address of special use",
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => "an address for documentation",
        [198, 18..=19, ..] => "an address for measuring",
        [224..=239, ..] => "a multicast address",
        [240..=255, ..] => "a reserved address",
        _ => return None,
    })
}

fn special_v6(address: Ipv6Addr) -> Option<&'static str> {
    let segments = address.segments();
    Some(match segments {
        [0, 0, 0, 0, 0, 0, 0, 0] => "an unspecified address",
        [0, 0, 0, 0, 0, 0, 0, 1] => "this machine's own address",
        [0, 0, 0, 0, 0, 0xffff, ..] => "an IPv4 address in IPv6's clothes",
        [0x64, 0xff9b, ..] => "a translator's address",
        [0x2002, ..] | [0x2001, 0, ..] => "a tunnel's address",
        [0xfc00..=0xfdff, ..] => "a private address",
        [0xfe80..=0xfebf, ..] => "a link-local address",
        [0xff00..=0xffff, ..] => "a multicast address",
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => "an address for documentation",
        [0x2001, 1..=0x1ff, ..] => "an address of special use",
        // All that is global unicast today.
        [0x2000..=0x3fff, ..] => return None,
        _ => "a reserved address",
    })
}

/// The IPv4 address that an IPv6 one leads to.
fn carried(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(address) = address else { return None };
    let bits = address.to_bits();
    let at = |low: u32| Some(Ipv4Addr::from_bits((bits >> low) as u32));
    match address.segments() {
        // The loopback and unspecified addresses carry nothing, though they look as if.
        [0, 0, 0, 0, 0, 0, 0, 0..=1] => None,
        [0, 0, 0, 0, 0, 0 | 0xffff, ..] | [0, 0, 0, 0, 0xffff, 0, ..] => at(0),
        [0x64, 0xff9b, 0, 0, 0, 0, ..] | [0x64, 0xff9b, 1, ..] => at(0),
        [0x2002, ..] => at(80),
        // Teredo hides its client's address by inverting it.
        [0x2001, 0, ..] => Some(Ipv4Addr::from_bits(!(bits as u32))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect(text)
    }

    fn named(texts: &[&str]) -> Vec<Network> {
        texts.iter().map(|text| Network::parse(text).expect(text)).collect()
    }

    #[test]
    fn only_public_unicast_is_open() {
        for address in ["1.1.1.1", "8.8.8.8", "93.184.216.34", "172.15.0.1", "172.32.0.1", "100.63.0.1", "2606:4700::1111", "2a00::1"] {
            assert_eq!(judge(ip(address), &[]), Ok(()), "{address}");
        }
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.5",
            "100.64.0.1",
            "127.0.0.1",
            "127.255.0.1",
            "169.254.1.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.0.1",
            "198.51.100.7",
            "203.0.113.7",
            "224.0.0.1",
            "239.1.1.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:1.1.1.1",
            "::1.1.1.1",
            "64:ff9b::1.1.1.1",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:20::1",
            "2001:db8::1",
            "2002:101:101::1",
            "3fff::1",
            "4000::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(judge(ip(address), &[]).is_err(), "{address}");
        }
    }

    #[test]
    fn what_the_owner_names_is_open_and_nothing_beside_it() {
        let owners = named(&["10.0.0.5", "192.168.7.0/24", "::1"]);
        for address in ["10.0.0.5", "192.168.7.9", "::1"] {
            assert_eq!(judge(ip(address), &owners), Ok(()), "{address}");
        }
        for address in ["10.0.0.6", "192.168.8.1", "127.0.0.1", "::ffff:10.0.0.5"] {
            assert!(judge(ip(address), &owners).is_err(), "{address}");
        }
    }

    #[test]
    fn metadata_is_named_address_by_address() {
        for address in ["169.254.169.254", "fd00:ec2::254", "fd20:ce::254", "168.63.129.16", "100.100.100.200"] {
            let wide = named(&["0.0.0.0/0", "::/0", "169.254.0.0/16", "fd00::/8"]);
            assert_eq!(judge(ip(address), &wide).expect_err(address).what, "the address of a cloud's metadata service");
            assert_eq!(judge(ip(address), &named(&[address])), Ok(()));
        }
        assert!(is_metadata_name("metadata.google.internal") && !is_metadata_name("example.org"));
    }

    #[test]
    fn a_carried_address_is_judged_too() {
        for (outer, inner) in [
            ("::ffff:10.0.0.5", "10.0.0.5"),
            ("64:ff9b::169.254.169.254", "169.254.169.254"),
            ("64:ff9b:1::127.0.0.1", "127.0.0.1"),
            ("2002:7f00:1::1", "127.0.0.1"),
            ("2001:0:1:2:3:4:80ff:fffe", "127.0.0.1"),
            ("::192.168.1.1", "192.168.1.1"),
            ("::ffff:0:10.0.0.5", "10.0.0.5"),
        ] {
            let translator = named(&["::/0"]);
            assert_eq!(judge(ip(outer), &translator).map_err(|refused| refused.address), Err(ip(inner)), "{outer}");
            assert_eq!(judge(ip(outer), &[translator, named(&[inner])].concat()), Ok(()), "{outer}");
        }
        assert_eq!(judge(ip("64:ff9b::1.1.1.1"), &named(&["64:ff9b::/96"])), Ok(()), "behind a translator the public stays open");
    }

    #[test]
    fn networks_are_read_strictly_and_shown_as_they_are_written() {
        for text in ["10.0.0.5", "192.168.7.0/24", "0.0.0.0/0", "::/0", "fd00::/8", "::1"] {
            assert_eq!(Network::parse(text).expect(text).to_string(), text);
        }
        for text in ["", "10.0.0", "10.0.0.5/33", "::1/129", "10.0.0.5/-1", "10.0.0.5/", "010.0.0.5", "localhost", "10.0.0.5:80", "[::1]"] {
            assert!(Network::parse(text).is_err(), "{text}");
        }
        assert_eq!(Network::parse("10.0.0.5/8"), Err("`10.0.0.5/8` is inside of a network; the network is 10.0.0.0/8".into()));
    }
}
