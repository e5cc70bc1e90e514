//! Whether an output is like the one that a document shows: equal but for what differs from run to run.

use std::net::IpAddr;

use super::step::ExpectedOutput;

/// Letters and digits of generated names.
const GENERATED: &str = "bcdfghjklmnpqrstvwxz2456789";
/// A line that stands for any others.
const ANY: &str = "...";
/// What stands between parts of a word that are compared one by one.
const SEPARATORS: &[char] = &['=', ',', '(', ')', '[', ']', '"', '\'', '@', '{', '}'];

/// Ranges and subnets that a document names. An address that is shown stands for any other of the smallest
/// of them that it is in; if it is in none, it stands for itself.
#[derive(Debug, Default)]
pub struct AddressRanges(Vec<(u128, u128)>);

impl AddressRanges {
    pub(super) fn of(text: &str) -> Self {
        let words = text.split(|c: char| c.is_whitespace() || SEPARATORS.contains(&c));
        Self(words.filter_map(|word| range(word).or_else(|| subnet(word))).collect())
    }

    fn holds(&self, shown: IpAddr, real: IpAddr) -> bool {
        let (shown, real) = (number(shown), number(real));
        let around = self.0.iter().filter(|(first, last)| (*first..=*last).contains(&shown));
        let smallest = around.min_by_key(|(first, last)| last - first);
        smallest.is_some_and(|(first, last)| (*first..=*last).contains(&real))
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn range(word: &str) -> Option<(u128, u128)> {
    let (first, last) = word.split_once('-')?;
    Some((number(first.parse().ok()?), number(last.parse().ok()?)))
}

fn subnet(word: &str) -> Option<(u128, u128)> {
    let (address, length) = word.split_once('/')?;
    let (address, length): (IpAddr, u32) = (address.parse().ok()?, length.parse().ok()?);
    let bits: u32 = if address.is_ipv4() { 32 } else { 128 };
    if length >= bits {
        return None;
    }
    let host = u128::MAX.checked_shr(128 - (bits - length)).unwrap_or(0);
    let first = number(address);
    (first & host == 0).then_some((first, first | host))
}

/// Fails with the lines that are not as shown. Their order does not matter: names that are sorted are generated.
pub(super) fn compare(shown: &ExpectedOutput, real: &str, ranges: &AddressRanges) -> Result<(), String> {
    let wanted: Vec<&str> = content(shown.lines.iter().map(String::as_str)).collect();
    let open = wanted.contains(&ANY);
    let wanted: Vec<&str> = wanted.into_iter().filter(|line| *line != ANY).collect();
    let real: Vec<&str> = content(real.lines()).collect();
    // The real line that each shown one goes with.
    let mut pairs: Vec<Option<usize>> = vec![None; real.len()];
    let fits = |line: &str| -> Vec<bool> { real.iter().map(|real| is_alike(line, real, ranges)).collect() };
    let fits: Vec<Vec<bool>> = wanted.iter().map(|line| fits(line)).collect();
    for (index, line) in wanted.iter().enumerate() {
        if !pair(index, &fits, &mut pairs, &mut vec![false; real.len()]) {
            return Err(format!("nothing is like the line\n    {line}"));
        }
    }
    let surplus = pairs.iter().position(Option::is_none).filter(|_| !open);
    surplus.map_or(Ok(()), |index| Err(format!("the document does not show the line\n    {}", real[index])))
}

fn content<'a>(lines: impl Iterator<Item = &'a str>) -> impl Iterator<Item = &'a str> {
    lines.map(str::trim).filter(|line| !line.is_empty())
}

/// Finds a line for `wanted`, if need be by finding others for those that have one.
fn pair(wanted: usize, fits: &[Vec<bool>], pairs: &mut [Option<usize>], tried: &mut [bool]) -> bool {
    for real in 0..pairs.len() {
        if fits[wanted][real] && !std::mem::replace(&mut tried[real], true) {
            let holder = pairs[real];
            if holder.is_none_or(|holder| pair(holder, fits, pairs, tried)) {
                pairs[real] = Some(wanted);
                return true;
            }
        }
    }
    false
}

fn is_alike(shown: &str, real: &str, ranges: &AddressRanges) -> bool {
    let (shown, real): (Vec<_>, Vec<_>) =
        (shown.split_whitespace().collect(), real.split_whitespace().collect());
    shown.len() == real.len() && shown.iter().zip(real).all(|(shown, real)| is_word(shown, real, ranges))
}

fn is_word(shown: &str, real: &str, ranges: &AddressRanges) -> bool {
    let parts = |word| -> Vec<&str> { str::split_inclusive(word, SEPARATORS).collect() };
    let (shown, real) = (parts(shown), parts(real));
    shown.len() == real.len()
        && shown.iter().zip(real).all(|(shown, real)| {
            let (left, right) = (shown.trim_end_matches(SEPARATORS), real.trim_end_matches(SEPARATORS));
            shown[left.len()..] == real[right.len()..] && is_part(left, right, ranges)
        })
}

fn is_part(shown: &str, real: &str, ranges: &AddressRanges) -> bool {
    let both = |check: fn(&str) -> bool| check(shown) && check(real);
    shown == real
        || is_address(shown, real, ranges)
        || both(is_time)
        || both(is_decimal)
        || both(is_uid)
        || both(is_mac)
        || both(is_index)
        || both(is_host_end)
        || both(is_client_port)
        || is_generated_name(shown, real)
        || is_pool_of_application(shown, real)
}

/// With what follows the address: a prefix length, a colon.
fn is_address(shown: &str, real: &str, ranges: &AddressRanges) -> bool {
    let parse = |word: &str| {
        let end = word.find('/').unwrap_or_else(|| word.trim_end_matches(':').len());
        Some((word[..end].parse::<IpAddr>().ok()?, word[end..].to_owned()))
    };
    match (parse(shown), parse(real)) {
        (Some((shown, after_shown)), Some((real, after_real))) => {
            after_shown == after_real && (shown == real || ranges.holds(shown, real))
        }
        _ => false,
    }
}

/// `9s`, `2m5s`, `27ms`, `00:13:08`.
fn is_time(word: &str) -> bool {
    let clock =
        word.split(':').count() == 3 && word.split(':').all(|part| part.len() == 2 && is_digits(part));
    let parts = word.split_inclusive(|c: char| c.is_ascii_alphabetic());
    let unit =
        |part: &str| part.ends_with(['s', 'm', 'h', 'd', 'y', 'w']) && is_digits(&part[..part.len() - 1]);
    let word = word.strip_suffix("ms").filter(|number| is_digits(number));
    clock || word.is_some() || parts.clone().count() > 0 && parts.into_iter().all(unit)
}

fn is_digits(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit())
}

/// `0.471`, and several with slashes as ping prints them.
fn is_decimal(word: &str) -> bool {
    let number = |word: &str| word.split_once('.').is_some_and(|(a, b)| is_digits(a) && is_digits(b));
    word.split('/').all(number)
}

fn is_hexadecimal(word: &str) -> bool {
    word.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_uid(word: &str) -> bool {
    word.split('-').map(str::len).eq([8, 4, 4, 4, 12]) && word.split('-').all(is_hexadecimal)
}

fn is_mac(word: &str) -> bool {
    word.split(':').count() == 6 && word.split(':').all(|part| part.len() == 2 && is_hexadecimal(part))
}

/// Of the other end of a veth pair, `if7`.
fn is_index(word: &str) -> bool {
    word.strip_prefix("if").is_some_and(|rest| is_digits(rest.trim_end_matches(':')))
}

fn is_host_end(word: &str) -> bool {
    word.strip_prefix("cali").is_some_and(|rest| rest.len() == 11 && is_hexadecimal(rest))
}

/// Of a client's connection, `:43210`.
fn is_client_port(word: &str) -> bool {
    let port = word.strip_prefix(':').and_then(|rest| rest.trim_end_matches(':').parse::<u16>().ok());
    port.is_some_and(|port| port >= 32_768)
}

/// `web-6b66fbbd46-2xjkq`: the parts that a controller generates differ.
fn is_generated_name(shown: &str, real: &str) -> bool {
    let is_generated =
        |part: &str| (4..=10).contains(&part.len()) && part.chars().all(|c| GENERATED.contains(c));
    let (shown, real): (Vec<_>, Vec<_>) = (shown.split('-').collect(), real.split('-').collect());
    let alike = |(shown, real): (&&str, &&str)| shown == real || is_generated(shown) && is_generated(real);
    shown.len() > 1 && shown.len() == real.len() && shown.iter().zip(&real).all(alike)
}

/// `auto4-web-eth0-1a2b3`: it ends with a part of the application's UID.
fn is_pool_of_application(shown: &str, real: &str) -> bool {
    let parts = |word: &str| {
        let (head, uid) = word.rsplit_once('-')?;
        let is_pool = head.starts_with("auto4-") || head.starts_with("auto6-");
        (is_pool && uid.len() == 5 && is_hexadecimal(uid)).then(|| head.to_owned())
    };
    parts(shown).is_some_and(|head| parts(real) == Some(head))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: &str = "subnet: 10.66.0.0/16\nips:\n- 10.66.10.100-10.66.10.200\n--set 'x={10.66.0.0/16}'";

    fn check(shown: &str, real: &str) -> Result<(), String> {
        let lines = shown.lines().map(str::to_owned).collect();
        compare(&ExpectedOutput { line: 1, lines }, real, &AddressRanges::of(SCRIPT))
    }

    #[test]
    fn what_differs_from_run_to_run_may_differ() {
        for (shown, real) in [
            ("web-6b66fbbd46-2xjkq  1/1   Running 0 9s", "web-5d8c7b9f6-zz9xk 1/1 Running 0 2m5s"),
            ("10.66.10.101/16 node1", "10.66.10.199/16 node1"),
            (
                "64 bytes from 10.66.0.7: seq=0 ttl=62 time=0.471 ms",
                "64 bytes from 10.66.9.9: seq=0 ttl=62 time=1.2 ms",
            ),
            ("round-trip min/avg/max = 0.1/0.2/0.3 ms", "round-trip min/avg/max = 1.1/1.25/1.3 ms"),
            ("4: eth0@if7: <UP>", "4: eth0@if12: <UP>"),
            ("uid: 65262cc2-6ff2-4121-80fa-0d21cc126367", "uid: 75881bdc-9930-4c76-b848-5af0f9188722"),
            ("[::ffff:10.66.10.101]:43210: response:200", "[::ffff:10.66.10.150]:51234: response:200"),
            ("via 10.66.0.7, eth1, weight 1, 00:13:08", "via 10.66.0.9, eth1, weight 1, 00:00:02"),
            ("auto4-web-eth0-1a2b3 4", "auto4-web-eth0-0f00d 4"),
            ("link/ether a2:99:9d:04:01:80", "link/ether 02:11:22:33:44:55"),
        ] {
            check(shown, real).unwrap();
        }
    }

    #[test]
    fn everything_else_may_not() {
        for (shown, real) in [
            ("web-6b66fbbd46-2xjkq 1/1", "web-6b66fbbd46-2xjkq 0/1"),
            ("web-6b66fbbd46-2xjkq", "app-6b66fbbd46-2xjkq"),
            ("auto4-web-eth0-1a2b3", "auto4-web-net1-1a2b3"),
            ("auto4-web-eth0-1a2b3", "auto4-web-eth0-1a2bx"),
            ("10.66.10.101/16", "10.66.10.99/16"),
            ("10.66.10.101/16", "10.66.10.101/32"),
            ("10.67.0.1", "10.67.0.2"),
            ("Running", "Pending"),
            ("2 packets received, 0% packet loss", "1 packets received, 50% packet loss"),
            ("node1", "node2"),
            ("200", "404"),
        ] {
            check(shown, real).unwrap_err();
        }
    }

    #[test]
    fn lines_go_with_one_line_each_in_any_order() {
        check("a 1s\nb 10.66.10.101", "b 10.66.10.102\n\na 3s\n").unwrap();
        // The first could take either line, the second one alone.
        check("x 10.66.10.101\nx 10.67.0.1", "x 10.67.0.1\nx 10.66.10.103").unwrap();
        assert!(check("a\nb", "a").unwrap_err().contains("nothing is like the line\n    b"));
        assert!(check("a", "a\nb").unwrap_err().contains("does not show the line\n    b"));
        check("a\n...", "a\nb\nc").unwrap();
        check("a\na", "a\nb").unwrap_err();
    }
}
