//! From a SpiderMultusConfig to the NetworkAttachmentDefinition that Multus reads.
//!
//! [`validate`] says what is wrong with an object, [`plan_attachment`] what is made of one that is right. Both are
//! functions of [`MultusFields`]: what the webhook refuses, the controller makes nothing of, in the same words.

pub mod annotations;
mod attachment;
mod block;
mod chain;
mod fields;
mod injection;
mod render;
mod validate;

pub use attachment::{Attachment, plan_attachment};
pub use block::{
    Bond, CniType, IbSriovConfig, IpoibConfig, LinkState, MultusPools, OvsConfig, SriovConfig, Trunk,
    VlanConfig, VlanMode, VlanNicConfig,
};
pub use fields::MultusFields;
pub use injection::{
    INJECTION_KEYS, InjectableNetwork, Injection, InjectionProblem, Wanted, WantedBy, plan_injection,
};
pub use validate::{validate, validate_update};
