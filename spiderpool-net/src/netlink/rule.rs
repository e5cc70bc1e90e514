//! Rules of policy routing.

use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use spiderpool_core::ip::Family;
use spiderpool_core::net::{Rule, Selector};

use super::route::address_family;
use super::{Netlink, NetlinkError};

impl Netlink {
    /// The rules of the namespace that ask a table, of both families.
    pub async fn rules(&mut self) -> Result<Vec<Rule>, NetlinkError> {
        let message = RouteNetlinkMessage::GetRule(RuleMessage::default());
        self.dump("list rules", "", message, read).await
    }

    /// Adds a rule. That exactly this one is there is not an error.
    pub async fn add_rule(&mut self, rule: &Rule) -> Result<(), NetlinkError> {
        let message = RouteNetlinkMessage::NewRule(message(rule));
        match self.execute_raw("add rule", rule, NLM_F_CREATE | NLM_F_EXCL, message).await {
            Err(error) if error.is_exists() => Ok(()),
            result => result,
        }
    }

    /// Deletes a rule; one that is not there is not an error.
    pub async fn delete_rule(&mut self, rule: &Rule) -> Result<(), NetlinkError> {
        let message = RouteNetlinkMessage::DelRule(message(rule));
        match self.execute_raw("delete rule", rule, 0, message).await {
            Err(error) if error.is_gone() => Ok(()),
            result => result,
        }
    }

    /// Deletes a rule that others share, unless its table has a route.
    ///
    /// Who adds a route adds the rule after it. So a route that came before the second look is seen here, and one that
    /// came later brings the rule back itself.
    pub async fn delete_idle_rule(&mut self, rule: &Rule) -> Result<(), NetlinkError> {
        if self.is_used(rule).await? {
            return Ok(());
        }
        self.delete_rule(rule).await?;
        if self.is_used(rule).await? { self.add_rule(rule).await } else { Ok(()) }
    }

    /// Deletes the rules of ours whose tables are empty.
    pub async fn delete_idle_rules(&mut self) -> Result<(), NetlinkError> {
        for rule in self.rules().await?.iter().filter(|rule| rule.is_ours()) {
            self.delete_idle_rule(rule).await?;
        }
        Ok(())
    }

    async fn is_used(&mut self, rule: &Rule) -> Result<bool, NetlinkError> {
        Ok(self.routes_in(rule.table).await?.iter().any(|route| route.family() == rule.family))
    }
}

fn message(rule: &Rule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = address_family(rule.family);
    message.header.action = RuleAction::ToTable;
    let attributes = &mut message.attributes;
    match rule.selector {
        Selector::All | Selector::Other => {}
        Selector::From(address) => {
            message.header.src_len = rule.family.bits();
            attributes.push(RuleAttribute::Source(address));
        }
        Selector::Mark(mark) => attributes.push(RuleAttribute::FwMark(mark)),
    }
    attributes.push(RuleAttribute::Table(rule.table));
    attributes.push(RuleAttribute::Priority(rule.priority));
    if rule.protocol != 0 {
        attributes.push(RuleAttribute::Protocol(rule.protocol.into()));
    }
    message
}

fn read(message: RouteNetlinkMessage) -> Option<Rule> {
    let RouteNetlinkMessage::NewRule(message) = message else { return None };
    let header = &message.header;
    let family = match header.family {
        AddressFamily::Inet => Family::V4,
        AddressFamily::Inet6 => Family::V6,
        _ => return None, // of multicast routing
    };
    if header.action != RuleAction::ToTable {
        return None;
    }
    let is_host = header.src_len == family.bits();
    let mut rule =
        Rule { family, priority: 0, selector: Selector::All, table: header.table.into(), protocol: 0 };
    let mut selectors = Vec::new();
    for attribute in message.attributes {
        match attribute {
            RuleAttribute::Priority(priority) => rule.priority = priority,
            RuleAttribute::Table(table) => rule.table = table,
            RuleAttribute::Protocol(protocol) => rule.protocol = protocol.into(),
            RuleAttribute::Source(address) if is_host => selectors.push(Selector::From(address)),
            RuleAttribute::FwMark(mark) => selectors.push(Selector::Mark(mark)),
            // The kernel lists them with every rule.
            RuleAttribute::FwMask(u32::MAX) | RuleAttribute::SuppressPrefixLen(u32::MAX) => {}
            _ => selectors.push(Selector::Other),
        }
    }
    rule.selector = match selectors[..] {
        [] => Selector::All,
        [only] => only,
        _ => Selector::Other,
    };
    Some(rule)
}
