//! The tc programs. All that they decide is in `spiderpool-ebpf-common`; here are the entry points, the maps
//! and the kernel's helpers.
#![no_std]
#![no_main]
#![expect(clippy::needless_pass_by_value, reason = "the attribute `classifier` calls them by value")]

mod kernel;
mod maps;
mod reverse_path;
mod skb;
mod sockets;

use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;

use kernel::Kernel;
use maps::RunMemory;
use skb::Skb;

/// Egress of every NIC of a pod.
#[classifier]
pub fn egress(ctx: TcContext) -> i32 {
    let Some(RunMemory { scratch, ending }) = maps::memory() else { return TC_ACT_UNSPEC };
    let (mut packet, kernel) = (Skb::new(&ctx), Kernel::new(&ctx, ending));
    kernel.finish(spiderpool_ebpf_common::egress(&mut packet, kernel.nic_id(), scratch, &kernel))
}

/// Ingress of every NIC of a pod.
#[classifier]
pub fn ingress(ctx: TcContext) -> i32 {
    let Some(RunMemory { scratch, ending }) = maps::memory() else { return TC_ACT_UNSPEC };
    let (mut packet, kernel) = (Skb::new(&ctx), Kernel::new(&ctx, ending));
    kernel.finish(spiderpool_ebpf_common::ingress(&mut packet, kernel.nic_id(), scratch, &kernel))
}

/// Egress of the host end of a node link: to the pod.
#[classifier]
pub fn host_egress(ctx: TcContext) -> i32 {
    let Some(RunMemory { scratch, ending }) = maps::memory() else { return TC_ACT_UNSPEC };
    let (packet, kernel) = (Skb::new(&ctx), Kernel::new(&ctx, ending));
    kernel.finish(spiderpool_ebpf_common::host_egress(&packet, kernel.nic_id(), scratch, &kernel))
}

/// Ingress of the host end of a node link: from the pod.
#[classifier]
pub fn host_ingress(ctx: TcContext) -> i32 {
    let Some(RunMemory { scratch, ending }) = maps::memory() else { return TC_ACT_SHOT };
    let (packet, kernel) = (Skb::new(&ctx), Kernel::new(&ctx, ending));
    kernel.finish(spiderpool_ebpf_common::host_ingress(&packet, kernel.nic_id(), scratch, &kernel))
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
