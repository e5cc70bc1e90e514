//! clsact and direct-action eBPF filters by raw messages: rtnetlink has no builder for either.
//!
//! One filter per direction, for all protocols: priority 1 handle 1, or the first priority that nobody has where another's
//! filter is there. Its classid is the NIC's id, of which the program sees the low 16 bits. The qdisc is added once, before traffic, and never deleted: both lose packets
//! on a link that is up. A filter is replaced in place instead, which loses none.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, AsRawFd};

use nix::libc;
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::tc::{
    TcAttribute, TcBpfFlags, TcFilterBpfOption, TcHandle, TcMessage, TcOption,
};

use crate::netlink::{Netlink, NetlinkError};

/// `TC_H_CLSACT`; linux/pkt_sched.h.
const CLSACT: u32 = 0xffff_fff1;
/// `TC_H_MAKE(TC_H_CLSACT, 0)`: the qdisc's own handle.
const CLSACT_HANDLE: u32 = 0xffff_0000;
/// Where ours belongs if nobody else is there.
const PRIORITY: u16 = 1;
const HANDLE: u32 = 1;

/// The side of a link that a filter is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// What the link receives.
    Ingress,
    /// What the link sends.
    Egress,
}

impl Direction {
    /// Both sides.
    pub const ALL: [Self; 2] = [Self::Ingress, Self::Egress];

    /// `TC_H_MIN_INGRESS` and `TC_H_MIN_EGRESS` of clsact.
    fn parent(self) -> u32 {
        match self {
            Self::Ingress => 0xffff_fff2,
            Self::Egress => 0xffff_fff3,
        }
    }
}

impl std::fmt::Display for Direction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        })
    }
}

/// What to do if there is a filter already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attach {
    /// It is an error (EEXIST).
    Create,
    /// It is replaced, atomically.
    Replace,
}

/// A filter as the kernel reports it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Its place: the kernel asks the lowest first.
    pub priority: u16,
    /// Which one of this priority.
    pub handle: u32,
    /// The NIC's id.
    pub classid: u32,
    /// The name given when it was attached.
    pub name: String,
    /// The program's id; 0 for one that is no eBPF filter.
    pub program: u32,
}

/// What [`Netlink::ensure_filter`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilterOutcome {
    /// There was none of ours.
    Created,
    /// It replaced one of ours, which loses no packet.
    Replaced,
}

impl Filter {
    /// Whether it is one of ours for `direction`, by the name that we give it. Neither the program's id nor its tag or maps
    /// would outlive an upgrade.
    pub fn is_ours(&self, direction: Direction) -> bool {
        self.has_our_place() && self.name == own_name(direction)
    }

    /// Whether it is one of ours on the NIC with this id. Before 0.1 they were called as their direction, as others' may be:
    /// those have the NIC's id.
    pub fn is_ours_on(&self, direction: Direction, id: u16) -> bool {
        let is_older = self.name == direction.to_string() && self.classid == u32::from(id);
        self.is_ours(direction) || self.has_our_place() && is_older
    }

    fn has_our_place(&self) -> bool {
        self.handle == HANDLE && self.program != 0 && self.classid != 0
    }
}

fn own_name(direction: Direction) -> String {
    format!("spiderpool-{direction}")
}

impl Netlink {
    /// Adds the clsact qdisc; one that is there already is kept. An `ingress` qdisc has the same place.
    pub async fn add_clsact(&mut self, index: u32) -> Result<(), NetlinkError> {
        let mut message = TcMessage::with_index(index as i32);
        message.header.parent = TcHandle::from(CLSACT);
        message.header.handle = TcHandle::from(CLSACT_HANDLE);
        message.attributes.push(TcAttribute::Kind("clsact".to_owned()));
        let message = RouteNetlinkMessage::NewQueueDiscipline(message);
        match self.execute_raw("add clsact to link", index, NLM_F_CREATE | NLM_F_EXCL, message).await {
            Err(error) if error.is_exists() => self.check_clsact(index).await,
            result => result,
        }
    }

    async fn check_clsact(&mut self, index: u32) -> Result<(), NetlinkError> {
        let message = RouteNetlinkMessage::GetQueueDiscipline(TcMessage::with_index(index as i32));
        let read = |message| match message {
            // The kernel lists those of all links.
            RouteNetlinkMessage::NewQueueDiscipline(qdisc) if qdisc.header.index == index as i32 => {
                Some(qdisc)
            }
            _ => None,
        };
        let present = self.dump("list qdiscs", format!("of link {index}"), message, read).await?;
        let has_ingress = present.iter().any(|qdisc| {
            qdisc.attributes.iter().any(|a| matches!(a, TcAttribute::Kind(kind) if kind == "ingress"))
        });
        if has_ingress { Err(NetlinkError::IngressQdisc { link: index }) } else { Ok(()) }
    }

    /// Attaches a program with the NIC's id as classid, named as ours. [`Attach::Replace`] takes the place
    /// of any eBPF filter there: see [`Netlink::own_filter`].
    pub async fn attach_filter(
        &mut self,
        index: u32,
        direction: Direction,
        program: impl AsFd,
        classid: u16,
        attach: Attach,
    ) -> Result<(), NetlinkError> {
        self.attach_at(index, direction, PRIORITY, program, classid, attach).await
    }

    async fn attach_at(
        &mut self,
        index: u32,
        direction: Direction,
        priority: u16,
        program: impl AsFd,
        classid: u16,
        attach: Attach,
    ) -> Result<(), NetlinkError> {
        let name = own_name(direction);
        let mut message = filter(index, direction, priority);
        message.attributes = vec![
            TcAttribute::Kind("bpf".to_owned()),
            TcAttribute::Options(vec![
                TcOption::Bpf(TcFilterBpfOption::ClassId(u32::from(classid).into())),
                TcOption::Bpf(TcFilterBpfOption::ProgFd(program.as_fd().as_raw_fd() as u32)),
                TcOption::Bpf(TcFilterBpfOption::ProgName(name)),
                TcOption::Bpf(TcFilterBpfOption::Flags(TcBpfFlags::DirectAction)),
            ]),
        ];
        let flags = NLM_F_CREATE | if attach == Attach::Create { NLM_F_EXCL } else { NLM_F_REPLACE };
        let object = format!("to {direction} of link {index}");
        self.execute_raw("attach filter", object, flags, RouteNetlinkMessage::NewTrafficFilter(message)).await
    }

    /// Attaches a program, in place of one of ours if there is one, and behind a filter of somebody else that has its
    /// priority.
    pub async fn ensure_filter(
        &mut self,
        index: u32,
        direction: Direction,
        program: impl AsFd,
        classid: u16,
    ) -> Result<FilterOutcome, NetlinkError> {
        let error = match self.attach_filter(index, direction, &program, classid, Attach::Create).await {
            Ok(()) => return Ok(FilterOutcome::Created),
            // EINVAL: the priority has filters of another kind or protocol.
            Err(error) if error.is_exists() || error.errno() == Some(libc::EINVAL) => error,
            Err(error) => return Err(error),
        };
        let present = self.filters(index, direction).await?;
        if let Some(own) = present.iter().find(|filter| filter.is_ours_on(direction, classid)) {
            self.attach_at(index, direction, own.priority, &program, classid, Attach::Replace).await?;
            return Ok(FilterOutcome::Replaced);
        }
        let taken: BTreeSet<u16> = present.iter().map(|filter| filter.priority).collect();
        let free = (PRIORITY..u16::MAX).find(|priority| !taken.contains(priority));
        let Some(free) = free else { return Err(error) };
        if free == PRIORITY {
            return Err(error);
        }
        self.attach_at(index, direction, free, &program, classid, Attach::Create).await?;
        Ok(FilterOutcome::Created)
    }

    /// Detaches our filter; one that is not there is not an error, another's stays.
    pub async fn detach_filter(&mut self, index: u32, direction: Direction) -> Result<(), NetlinkError> {
        let Some(own) = self.own_filter(index, direction).await? else { return Ok(()) };
        self.detach_at(index, direction, own.priority).await
    }

    /// Detaches the filter of this priority with our handle, whosever it is.
    pub async fn detach_at(
        &mut self,
        index: u32,
        direction: Direction,
        priority: u16,
    ) -> Result<(), NetlinkError> {
        let mut message = filter(index, direction, priority);
        message.attributes.push(TcAttribute::Kind("bpf".to_owned()));
        let object = format!("{direction} of link {index}");
        let message = RouteNetlinkMessage::DelTrafficFilter(message);
        match self.execute_raw("detach filter from", object, 0, message).await {
            // EINVAL: the link has no clsact, so it has no filter.
            Err(error) if error.is_gone() || error.errno() == Some(libc::EINVAL) => Ok(()),
            result => result,
        }
    }

    /// Our filter on one side of a link.
    pub async fn own_filter(
        &mut self,
        index: u32,
        direction: Direction,
    ) -> Result<Option<Filter>, NetlinkError> {
        Ok(self.filters(index, direction).await?.into_iter().find(|filter| filter.is_ours(direction)))
    }

    /// The filters on one side of a link, the first to be asked first; none if it has no clsact.
    pub async fn filters(&mut self, index: u32, direction: Direction) -> Result<Vec<Filter>, NetlinkError> {
        let mut message = TcMessage::with_index(index as i32);
        message.header.parent = TcHandle::from(direction.parent());
        let object = format!("of {direction} of link {index}");
        match self.dump("list filters", object, RouteNetlinkMessage::GetTrafficFilter(message), read).await {
            Err(error) if error.is_gone() || error.errno() == Some(libc::EINVAL) => Ok(Vec::new()),
            result => result,
        }
    }
}

fn filter(index: u32, direction: Direction, priority: u16) -> TcMessage {
    let mut message = TcMessage::with_index(index as i32);
    message.header.parent = TcHandle::from(direction.parent());
    message.header.handle = TcHandle::from(HANDLE);
    message.header.info = u32::from(priority) << 16 | u32::from((libc::ETH_P_ALL as u16).to_be());
    message
}

fn read(message: RouteNetlinkMessage) -> Option<Filter> {
    let RouteNetlinkMessage::NewTrafficFilter(message) = message else { return None };
    let options = message.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Options(options) => Some(options.as_slice()),
        _ => None,
    });
    let mut filter = Filter {
        priority: (message.header.info >> 16) as u16,
        handle: message.header.handle.into(),
        ..Filter::default()
    };
    for option in options.unwrap_or_default() {
        match option {
            TcOption::Bpf(TcFilterBpfOption::ClassId(id)) => filter.classid = (*id).into(),
            TcOption::Bpf(TcFilterBpfOption::ProgName(name)) => filter.name.clone_from(name),
            TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => filter.program = *id,
            _ => {}
        }
    }
    // The first entry of a priority is the priority itself, without a filter.
    (filter.handle != 0).then_some(filter)
}

#[cfg(test)]
mod tests;
