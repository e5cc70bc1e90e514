//! A packet as the logic sees it: bounds-checked loads and stores from the Ethernet header on, and checksum
//! replacement that also holds for packets whose checksum is still to be computed by the device.

/// EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub const IPV6: u16 = 0x86dd;
/// EtherType of ARP.
pub const ARP: u16 = 0x0806;
/// EtherType of 802.1Q.
pub const VLAN: u16 = 0x8100;
/// EtherType of an outer VLAN (802.1ad).
pub const SERVICE_VLAN: u16 = 0x88a8;
/// Length of the Ethernet header.
pub const ETH: u32 = 14;

/// What a replaced word is to a transport checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sum {
    /// The word belongs to the pseudo header (an address), not to the transport header.
    pub pseudo: bool,
    /// UDP: a checksum of 0 means none and stays; a computed 0 is written as 0xffff.
    pub udp: bool,
}

/// A packet, starting at its Ethernet header. All offsets are from there. `None` or `false`: out of bounds, or
/// the kernel refused; the packet is then as it was.
pub trait Packet {
    /// Length in bytes, Ethernet header included.
    fn len(&self) -> u32;

    /// Whether it is empty (it never is).
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Payload of each segment of a GSO packet, which is to be cut up later; 0 if it is none.
    fn gso_size(&self) -> u32;

    /// Whether the frame is for another machine (`PACKET_OTHERHOST`): flooded, or seen by a promiscuous NIC.
    fn is_for_other_host(&self) -> bool;

    /// Whether the program of another NIC has decided that the packet leaves by this one. Asking takes the mark off.
    fn take_decided(&mut self) -> bool;

    /// Marks it so.
    fn set_decided(&mut self);

    /// EtherType, host byte order. [`VLAN`] also where the kernel keeps the tag of a frame beside it: what is in that is a VLAN
    /// device's business. (A tag without VLAN number, of priority alone, makes no difference.)
    fn protocol(&self) -> u16;

    /// Whether the frame has tags behind one that has no VLAN number, or that is not taken off: the kernel takes off all tags without
    /// number, but only one of them before it asks a program (`check_vlan_id` in net/core/dev.c).
    fn has_hidden_tags(&self) -> bool;

    /// Reads bytes.
    fn load<const N: usize>(&self, at: u32) -> Option<[u8; N]>;

    /// Reads words in memory order: aligned, so that the BPF target does not take them apart.
    fn load_words<const N: usize>(&self, at: u32) -> Option<[u32; N]>;

    /// Reads words in memory order into memory of the caller's.
    fn load_into<const N: usize>(&self, at: u32, words: &mut [u32; N]) -> bool;

    /// The sum of words in one's complement.
    fn sum<const N: usize>(&self, words: &[u32; N]) -> u32;

    /// Writes words. Does not touch checksums.
    fn store_words<const N: usize>(&mut self, at: u32, words: &[u32; N]) -> bool;

    /// Makes the first `len` bytes writable: after that no write below `len` is refused.
    fn make_writable(&mut self, len: u32) -> bool;

    /// Writes bytes. Does not touch checksums.
    fn store<const N: usize>(&mut self, at: u32, bytes: &[u8; N]) -> bool;

    /// Adds to the checksum of the whole packet, if the device that it came by has given one (`CHECKSUM_COMPLETE`).
    fn add_to_whole_sum(&mut self, difference: u32);

    /// Cuts the packet off behind `len` bytes. It is no GSO packet any more.
    fn truncate(&mut self, len: u32) -> bool;

    /// Adapts the IPv4 header checksum at `at` to a changed word (both in memory order).
    fn l3_csum_replace(&mut self, at: u32, from: u32, to: u32) -> bool;

    /// Adapts the transport checksum at `at` to a changed word of 4 bytes (in memory order).
    fn l4_csum_replace(&mut self, at: u32, from: u32, to: u32, sum: Sum) -> bool;

    /// The same for a word of 2 bytes, which is never part of the pseudo header.
    fn l4_csum_replace_u16(&mut self, at: u32, from: u16, to: u16, sum: Sum) -> bool;
}
