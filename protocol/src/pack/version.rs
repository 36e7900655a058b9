//! Which of two versions is the newer. Semantic versions are compared by their own rules (precedence, section 11);
//! others (`2026.11`, `1`, `r7`) by the same ones as far as they go, so that every two versions have an order and
//! nobody slips an old one in by spelling it oddly.

use std::cmp::Ordering;

/// Whether `a` is older than `b`, the same or newer. What follows a `+` does not count.
#[must_use]
pub fn compare_versions(a: &str, b: &str) -> Ordering {
    let (a, b) = (Parts::of(a), Parts::of(b));
    core(a.core, b.core).then_with(|| match (a.pre, b.pre) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
        (Some(a), Some(b)) => pre(a, b),
    })
}

struct Parts<'v> {
    core: &'v str,
    pre: Option<&'v str>,
}

impl<'v> Parts<'v> {
    fn of(version: &'v str) -> Self {
        let version = version.split('+').next().unwrap_or_default();
        match version.split_once('-') {
            Some((core, pre)) => Parts { core, pre: Some(pre) },
            None => Parts { core: version, pre: None },
        }
    }
}

/// `1.2` is `1.2.0`.
fn core(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.split('.'), b.split('.'));
    loop {
        let order = match (a.next(), b.next()) {
            (None, None) => return Ordering::Equal,
            (a, b) => word(a.unwrap_or("0"), b.unwrap_or("0")),
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

/// `alpha` comes before `alpha.1`.
fn pre(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.split('.'), b.split('.'));
    loop {
        let order = match (a.next(), b.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some(a), Some(b)) => word(a, b),
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

/// Numbers by their value, of any length; before words, which go by their letters.
fn word(a: &str, b: &str) -> Ordering {
    let number = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    match (number(a), number(b)) {
        (true, true) => {
            let (a, b) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
            a.len().cmp(&b.len()).then_with(|| a.cmp(b))
        }
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
        (false, false) => a.cmp(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_specifications_own_order_holds() {
        let rising = [
            "0.9.10",
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "1.0.0",
            "1.0.1",
            "1.2.0",
            "1.10.0",
            "2.0.0",
            "2026.11",
            "99999999999999999999999.0.0",
            "100000000000000000000000.0.0",
        ];
        for (at, lower) in rising.iter().enumerate() {
            for higher in &rising[at + 1..] {
                assert_eq!(compare_versions(lower, higher), Ordering::Less, "{lower} {higher}");
                assert_eq!(compare_versions(higher, lower), Ordering::Greater, "{higher} {lower}");
            }
        }
    }

    #[test]
    fn spelling_does_not_make_a_version_newer() {
        for (a, b) in [("1.2", "1.2.0"), ("1.2.0+build.7", "1.2.0"), ("01.2.0", "1.2.0"), ("1", "1.0.0")] {
            assert_eq!(compare_versions(a, b), Ordering::Equal, "{a} {b}");
        }
    }

    proptest! {
        #[test]
        fn it_is_an_order(a in "[0-9a.+-]{1,8}", b in "[0-9a.+-]{1,8}", c in "[0-9a.+-]{1,8}") {
            prop_assert_eq!(compare_versions(&a, &a), Ordering::Equal);
            prop_assert_eq!(compare_versions(&a, &b), compare_versions(&b, &a).reverse());
            if compare_versions(&a, &b) != Ordering::Greater && compare_versions(&b, &c) != Ordering::Greater {
                prop_assert_ne!(compare_versions(&a, &c), Ordering::Greater);
            }
        }
    }
}
