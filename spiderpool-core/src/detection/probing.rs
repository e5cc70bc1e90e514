//! Asking several questions at the same time: when which is sent, and when it is over.

use std::time::{Duration, Instant};

use super::query::{Heard, Packet, Query};
use crate::mac::MacAddr;

/// How often the link is asked, and how long an answer is waited for after each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Times.
    pub probes: u32,
    /// After each.
    pub interval: Duration,
}

/// RFC 5227 has three probes, too, but seconds between them: a machine that answers at all answers at once, and who was
/// learning the link, such as a switch, is asked again.
impl Default for Timing {
    fn default() -> Self {
        Self { probes: 3, interval: Duration::from_millis(200) }
    }
}

/// What is to be done now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// Send these.
    Send(Vec<Packet>),
    /// Listen, for no longer than this.
    Listen(Duration),
    /// Everything is answered, or nobody answers.
    Over,
}

/// Questions that are being asked.
#[derive(Debug)]
pub struct Probing {
    mac: MacAddr,
    timing: Timing,
    answers: Vec<(Query, Option<MacAddr>)>,
    sent: u32,
    /// When it goes on without an answer.
    next: Option<Instant>,
}

impl Probing {
    /// In the name of this MAC.
    pub fn new(mac: MacAddr, queries: Vec<Query>, timing: Timing) -> Self {
        let answers = queries.into_iter().map(|query| (query, None)).collect();
        Self { mac, timing, answers, sent: 0, next: None }
    }

    /// What is to be done at this time.
    pub fn turn(&mut self, now: Instant) -> Turn {
        let open = self.answers.iter().filter(|(_, answer)| answer.is_none());
        let packets: Vec<_> = open.map(|(query, _)| query.packet(self.mac)).collect();
        if packets.is_empty() {
            return Turn::Over;
        }
        if let Some(left) = self.next.map(|next| next.saturating_duration_since(now))
            && !left.is_zero()
        {
            return Turn::Listen(left);
        }
        if self.sent >= self.timing.probes {
            return Turn::Over;
        }
        self.sent += 1;
        self.next = Some(now + self.timing.interval);
        Turn::Send(packets)
    }

    /// Something has come in.
    pub fn hear(&mut self, heard: &Heard<'_>) {
        for (query, answer) in &mut self.answers {
            *answer = answer.or_else(|| query.answer(self.mac, heard));
        }
    }

    /// Who has answered what so far.
    pub fn into_answers(self) -> Vec<(Query, Option<MacAddr>)> {
        self.answers
    }
}

#[cfg(test)]
mod tests {
    use super::super::ndp::unsolicited_advertisement;
    use super::super::query::Cast;
    use super::*;
    use crate::ip::Family;

    const OWN: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const OTHER: MacAddr = MacAddr([2, 0, 0, 0, 0, 7]);
    const TIMING: Timing = Timing { probes: 2, interval: Duration::from_millis(100) };

    fn both() -> Vec<Query> {
        vec![Query::Owner("10.6.0.9".parse().unwrap()), Query::Owner("fd66::9".parse().unwrap())]
    }

    fn sent(turn: Turn) -> usize {
        match turn {
            Turn::Send(packets) => packets.len(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn all_are_asked_at_once_and_again_until_nobody_answers() {
        let begin = Instant::now();
        let at = |millis| begin + Duration::from_millis(millis);
        let mut probing = Probing::new(OWN, both(), TIMING);
        assert_eq!(sent(probing.turn(at(0))), 2);
        assert_eq!(probing.turn(at(30)), Turn::Listen(Duration::from_millis(70)));
        assert_eq!(sent(probing.turn(at(110))), 2);
        assert_eq!(probing.turn(at(209)), Turn::Listen(Duration::from_millis(1)));
        assert_eq!(probing.turn(at(210)), Turn::Over);
        assert!(probing.into_answers().iter().all(|(_, answer)| answer.is_none()));
    }

    #[test]
    fn what_is_answered_is_not_asked_again_and_the_rest_is() {
        let begin = Instant::now();
        let mut probing = Probing::new(OWN, both(), TIMING);
        assert_eq!(sent(probing.turn(begin)), 2);
        let bytes = unsolicited_advertisement(OTHER, "fd66::9".parse().unwrap());
        probing.hear(&Heard { family: Family::V6, from: OTHER, cast: Cast::Many, bytes: &bytes });
        assert!(matches!(probing.turn(begin), Turn::Listen(_)));
        assert_eq!(sent(probing.turn(begin + TIMING.interval)), 1);
        let answers: Vec<_> = probing.into_answers().into_iter().map(|(_, answer)| answer).collect();
        assert_eq!(answers, [None, Some(OTHER)]);
    }

    #[test]
    fn nothing_to_ask_is_over_at_once() {
        assert_eq!(Probing::new(OWN, vec![], TIMING).turn(Instant::now()), Turn::Over);
    }
}
