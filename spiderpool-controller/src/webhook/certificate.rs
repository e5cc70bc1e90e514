//! The certificate that the webhooks are served with. It is in a Secret, which every replica follows by a watch: a
//! handshake takes the certificate of the moment, and no replica restarts for a new one.
//!
//! With the method `auto` the replicas make it, and a CA for it. The key of the CA is thrown away: a CA signs one
//! certificate, and both are renewed together. So that no request fails meanwhile, the new pair is prepared in the Secret
//! first (`next.crt`), the leader makes the API server trust old and new CA, and only then is the new certificate served.
//! Writes carry the resourceVersion that was decided upon: of several replicas that want the same, one succeeds.
//!
//! Only the name by which the API server calls decides whether a certificate is used. Other names that it lacks are a reason
//! for the leader to make the next one.
//!
//! With the other methods somebody else writes the Secret and tells the API server of its CA. Then nothing is written here,
//! and what is wrong is said. A certificate of another CA is served when the API server has been told, or after a minute.

mod authorities;
mod ca_bundle;
mod configurations;
mod fault;
mod findings;
mod inspect;
mod issue;
mod names;
mod plan;
mod report;
mod resolver;
mod run;
mod secret;
mod settings;
mod validity;

pub(crate) use ca_bundle::CaBundleKeeper;
pub(crate) use report::CertificateReport;
pub(crate) use resolver::CertificateResolver;
pub(crate) use run::CertificateKeeper;
pub(crate) use settings::CertificateSettings;
