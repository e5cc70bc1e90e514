//! The rules that mark connections, as `nft` would write them:
//!
//! ```text
//! chain prerouting {
//!     type filter hook prerouting priority mangle;
//!     iifname FROM [ip daddr TO] ct state new ct mark 0 ct mark set MARK
//!     iifname != FROM ct mark MARK meta mark set MARK
//! }
//! chain output {
//!     type route hook output priority mangle;
//!     meta mark 0 ct mark MARK meta mark set MARK
//! }
//! ```
//!
//! The second one is for what the pod forwards, the answers of a virtual machine. Marks of others are left alone.

use std::net::IpAddr;

use netlink_packet_netfilter::nftables::{
    Bitwise, ChainAttribute, ChainMessage, Cmp, DataAttribute, ExpressionAttribute, Expressions, Hook,
    HookNumber, Immediate, InetHookNumber, ListAttribute, Meta, MetaKey, NfTablesMessage, Operator, Payload,
    Register, RuleAttribute, RuleMessage,
};
use nix::libc;
use rtnetlink::packet_core::{DefaultNla, NLM_F_APPEND, NLM_F_CREATE};
use spiderpool_core::net::ReturnMarks;

/// Of the requests that add chains and rules.
pub(super) const FLAGS: u16 = NLM_F_CREATE | NLM_F_APPEND;

const PREROUTING: &str = "prerouting";
const OUTPUT: &str = "output";

// linux/netfilter/nf_tables.h: of the expression `ct`, which the library does not have, and of `payload`.
const CT_DREG: u16 = 1;
const CT_KEY: u16 = 2;
const CT_SREG: u16 = 4;
const CT_KEY_STATE: u32 = 0;
const CT_KEY_MARK: u32 = 3;
/// `NF_CT_STATE_BIT(IP_CT_NEW)`.
const CT_STATE_NEW: u32 = 1 << 3;
/// `NFT_PAYLOAD_NETWORK_HEADER`.
const NETWORK_HEADER: u32 = 1;
/// Length of an interface's name in a register (IFNAMSIZ).
const NAME_LENGTH: usize = 16;

type Expression = ListAttribute<ExpressionAttribute>;

/// Chains and rules of the table.
pub(super) fn ruleset(table: &str, marks: &ReturnMarks) -> Vec<NfTablesMessage> {
    let mark = marks.mark;
    let is_first = |to: Option<IpAddr>| {
        let to = to.map(destination_is).unwrap_or_default();
        let is_new =
            [ct(CT_KEY_STATE), masked(CT_STATE_NEW), compare(Operator::NotEqual, &0_u32.to_ne_bytes())];
        let unmarked = [ct(CT_KEY_MARK), compare(Operator::Equal, &0_u32.to_ne_bytes())];
        [incoming(Operator::Equal, marks), to, is_new.to_vec(), unmarked.to_vec(), set_ct_mark(mark)].concat()
    };
    let destinations: Vec<Option<IpAddr>> =
        if marks.to.is_empty() { vec![None] } else { marks.to.iter().copied().map(Some).collect() };
    let marked = [ct(CT_KEY_MARK), compare(Operator::Equal, &mark.to_ne_bytes())];
    let forwarded = [incoming(Operator::NotEqual, marks), marked.to_vec(), set_mark(mark)].concat();
    let unmarked = [meta(MetaKey::Mark), compare(Operator::Equal, &0_u32.to_ne_bytes())];
    let own = [unmarked.to_vec(), marked.to_vec(), set_mark(mark)].concat();
    let mut messages = vec![
        chain(table, PREROUTING, "filter", InetHookNumber::PreRouting),
        chain(table, OUTPUT, "route", InetHookNumber::LocalOut),
    ];
    messages.extend(destinations.into_iter().map(|to| rule(table, PREROUTING, is_first(to))));
    messages.push(rule(table, PREROUTING, forwarded));
    messages.push(rule(table, OUTPUT, own));
    messages
}

fn chain(table: &str, name: &str, kind: &str, hook: InetHookNumber) -> NfTablesMessage {
    let hook = vec![
        Hook::Number(HookNumber::Inet(hook)),
        // After connection tracking, as a signed number in a field that the library has without one.
        Hook::Priority(libc::NF_IP_PRI_MANGLE.cast_unsigned()),
    ];
    NfTablesMessage::NewChain(ChainMessage {
        attributes: vec![
            ChainAttribute::Table(table.to_owned()),
            ChainAttribute::Name(name.to_owned()),
            ChainAttribute::Hook(hook),
            ChainAttribute::Type(kind.to_owned()),
        ],
    })
}

fn rule(table: &str, chain: &str, expressions: Vec<Expression>) -> NfTablesMessage {
    NfTablesMessage::NewRule(RuleMessage {
        attributes: vec![
            RuleAttribute::Table(table.to_owned()),
            RuleAttribute::Chain(chain.to_owned()),
            RuleAttribute::Expressions(expressions),
        ],
    })
}

fn incoming(operator: Operator, marks: &ReturnMarks) -> Vec<Expression> {
    let mut name = marks.from.as_str().as_bytes().to_vec();
    name.resize(NAME_LENGTH, 0);
    vec![meta(MetaKey::Iifname), compare(operator, &name)]
}

fn destination_is(address: IpAddr) -> Vec<Expression> {
    let (protocol, offset, bytes) = match address {
        IpAddr::V4(v4) => (libc::NFPROTO_IPV4, 16, v4.octets().to_vec()),
        IpAddr::V6(v6) => (libc::NFPROTO_IPV6, 24, v6.octets().to_vec()),
    };
    let load = Expressions::Payload(vec![
        Payload::DestinationRegister(Register::Reg1),
        Payload::Base(NETWORK_HEADER),
        Payload::Offset(offset),
        Payload::Len(bytes.len() as u32),
    ]);
    vec![
        meta(MetaKey::Nfproto),
        compare(Operator::Equal, &[protocol as u8]),
        load.into(),
        compare(Operator::Equal, &bytes),
    ]
}

fn meta(key: MetaKey) -> Expression {
    Expressions::Meta(vec![Meta::Key(key), Meta::DestinationRegister(Register::Reg1)]).into()
}

fn compare(operator: Operator, value: &[u8]) -> Expression {
    Expressions::Cmp(vec![
        Cmp::SourceRegister(Register::Reg1),
        Cmp::Op(operator),
        Cmp::Data(DataAttribute::Value(value.to_vec())),
    ])
    .into()
}

fn masked(mask: u32) -> Expression {
    let value = |value: u32| DataAttribute::Value(value.to_ne_bytes().to_vec());
    Expressions::Bitwise(vec![
        Bitwise::SourceRegister(Register::Reg1),
        Bitwise::DestinationRegister(Register::Reg1),
        Bitwise::Length(4),
        Bitwise::Mask(value(mask)),
        Bitwise::Xor(value(0)),
    ])
    .into()
}

fn load(value: u32) -> Expression {
    Expressions::Immediate(vec![
        Immediate::DestinationRegister(Register::Reg1),
        Immediate::Data(DataAttribute::Value(value.to_ne_bytes().to_vec())),
    ])
    .into()
}

fn set_mark(mark: u32) -> Vec<Expression> {
    let set = Expressions::Meta(vec![Meta::Key(MetaKey::Mark), Meta::SourceRegister(Register::Reg1)]);
    vec![load(mark), set.into()]
}

fn set_ct_mark(mark: u32) -> Vec<Expression> {
    vec![load(mark), connection(CT_KEY_MARK, CT_SREG)]
}

fn ct(key: u32) -> Expression {
    connection(key, CT_DREG)
}

fn connection(key: u32, register: u16) -> Expression {
    let number = |kind, value: u32| DefaultNla::new(kind, value.to_be_bytes().to_vec());
    let attributes = vec![number(CT_KEY, key), number(register, Register::Reg1.into())];
    Expressions::Other { expression_type: "ct".to_owned(), attributes }.into()
}
