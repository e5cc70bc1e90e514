//! The certificate: made, renewed, given by others, wanted by replicas that do not agree.

use std::time::Duration;

use k8s_openapi::ByteString;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use spiderpool_tests::control_plane::ControlPlane;
use spiderpool_tests::poll;
use spiderpool_tests::standalone_controller::CERTIFICATE;

use crate::hooks::{Hooks, KINDS};

/// The certificate expires several times while objects are written: every one is admitted.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_expires_is_replaced_before_anybody_notices() {
    let hooks = Hooks::new("hook-rotation").await;
    let validity = [("SPIDERPOOL_WEBHOOK_CERT_VALIDITY", "16"), ("SPIDERPOOL_WEBHOOK_CA_VALIDITY", "40")];
    let _first = hooks.controller("first", hooks.port, &validity).await;
    let _second = hooks.controller("second", 0, &validity).await;
    hooks.configure();
    hooks.wait_until_called().await;
    let (mut certificates, mut admitted) = (vec![hooks.certificate("tls.crt")], 0);
    let write = async || {
        let spec = json!({"ips": [format!("10.134.{}.{}", admitted / 250, admitted % 250)]});
        let written = Hooks::write(&hooks.object("SpiderReservedIP", "r", &spec));
        admitted += 1;
        let now = hooks.certificate("tls.crt");
        if certificates.last() != Some(&now) {
            certificates.push(now);
        }
        written.map(drop).map_err(anyhow::Error::msg)
    };
    poll::holds_async("objects are admitted", Duration::from_secs(36), write).await.unwrap();
    // A certificate counts once an object was written by it.
    assert!(certificates.len() > 2, "{} certificates", certificates.len());
}

/// Somebody has cleared the Secret, and an upgrade has taken the caBundle away.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_ours_and_its_ca_bundle_are_repaired() {
    let hooks = Hooks::new("hook-repair").await;
    let _controller = hooks.controller("a", hooks.port, &[]).await;
    hooks.configure();
    hooks.wait_until_called().await;
    let before = hooks.certificate("tls.crt");
    hooks.patch_certificate(&json!({"tls.crt": "garbage"}));
    let is_anew =
        async || ![before.as_str(), "", "Z2FyYmFnZQ=="].contains(&hooks.certificate("tls.crt").as_str());
    hooks.bench.until("the certificate is made anew", is_anew).await;
    let is_told = async || hooks.ca_bundles().iter().all(|bundle| *bundle == hooks.certificate("ca.crt"));
    hooks.bench.until("its CA is told", is_told).await;

    let remove = json!([{"op": "remove", "path": "/webhooks/0/clientConfig/caBundle"}]).to_string();
    for kind in KINDS {
        ControlPlane::shared().kubectl(&["patch", kind, &hooks.name, "--type=json", "-p", &remove]).unwrap();
    }
    hooks.bench.until("the CA is told again", is_told).await;
    // That of another installation, which is no CA of the certificate.
    let others = rcgen::generate_simple_self_signed(["other.test".to_owned()]).unwrap().cert.pem();
    hooks.configure_with(&json!(ByteString(others.into_bytes())), false);
    hooks.bench.until("the CA is told in place of another", is_told).await;
    // As helm upgrade applies it.
    hooks.configure();
    hooks.bench.until("the CA is told after an upgrade", is_told).await;
    hooks.wait_until_called().await;

    let namespace = hooks.bench.namespace();
    ControlPlane::shared().kubectl(&["delete", "secret", "-n", namespace, CERTIFICATE]).unwrap();
    hooks
        .bench
        .until("an Event names the lost Secret", async || hooks.has_event("there is no such Secret"))
        .await;
    hooks.wait_until_called().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_others_is_served_followed_and_never_written() {
    let hooks = Hooks::new("hook-provided").await;
    let name = format!("{}.{}.svc", hooks.name, hooks.bench.namespace());
    let names = [name.clone(), "127.0.0.1".to_owned()];
    let good = given(&names, None);
    hooks.bench.apply(&json!({
        "apiVersion": "v1", "kind": "Secret", "stringData": good,
        "metadata": {"name": CERTIFICATE, "namespace": hooks.bench.namespace()},
    }));
    let controller =
        hooks.controller("a", hooks.port, &[("SPIDERPOOL_WEBHOOK_TLS_METHOD", "provided")]).await;
    hooks.configure_with(&json!(hooks.certificate("ca.crt")), false);
    hooks.wait_until_called().await;

    let expired = given(&names, Some(2020));
    let mut leaf_as_ca = good.clone();
    leaf_as_ca["ca.crt"] = good["tls.crt"].clone();
    let mut other_ca = good.clone();
    other_ca["ca.crt"] = expired["ca.crt"].clone();
    let other_name = given(&["other.test".to_owned()], None);
    for (secret, fault) in [
        (&expired, "tls.crt has expired at 2020-".to_owned()),
        (&leaf_as_ca, "ca.crt is the server's own certificate".to_owned()),
        (&other_ca, "tls.crt is not signed by a CA of ca.crt".to_owned()),
        (&other_name, format!("tls.crt is not for {name}")),
    ] {
        hooks.patch_certificate(secret);
        hooks
            .bench
            .until(&format!("readiness says: {fault}"), async || {
                let (status, body) = controller.probe("/v1/runtime/readiness").await.unwrap();
                !status.is_success() && body.contains(&fault)
            })
            .await;
    }
    let version = hooks.certificate("tls.crt");
    hooks.bench.until("an Event names it", async || hooks.has_event("tls.crt is not for")).await;
    assert_eq!(hooks.certificate("tls.crt"), version, "it is not ours");
    hooks.patch_certificate(&good);
    hooks.wait_until_called().await;
}

/// PEM for these names by a CA of its own; of a year that is over if one is given.
fn given(names: &[String], year: Option<i32>) -> Value {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = ca.self_signed(&ca_key).unwrap().pem();
    let (issuer, key) = (Issuer::new(ca, ca_key), KeyPair::generate().unwrap());
    let mut certificate = CertificateParams::new(names.to_vec()).unwrap();
    if let Some(year) = year {
        certificate.not_before = rcgen::date_time_ymd(year, 1, 1);
        certificate.not_after = rcgen::date_time_ymd(year, 12, 1);
    }
    let certificate = certificate.signed_by(&key, &issuer).unwrap().pem();
    json!({"tls.crt": certificate, "tls.key": key.serialize_pem(), "ca.crt": authority})
}

/// A new Secret arrives before the configurations of the same upgrade: objects are admitted in between.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_ca_waits_until_the_api_server_is_told() {
    let hooks = Hooks::new("hook-other-ca").await;
    let names = [format!("{}.{}.svc", hooks.name, hooks.bench.namespace()), "127.0.0.1".to_owned()];
    hooks.bench.apply(&json!({
        "apiVersion": "v1", "kind": "Secret", "stringData": given(&names, None),
        "metadata": {"name": CERTIFICATE, "namespace": hooks.bench.namespace()},
    }));
    let _controller =
        hooks.controller("a", hooks.port, &[("SPIDERPOOL_WEBHOOK_TLS_METHOD", "provided")]).await;
    hooks.configure_with(&json!(hooks.certificate("ca.crt")), false);
    hooks.wait_until_called().await;
    hooks.patch_certificate(&given(&names, None));
    let admitted = |count: u8| {
        let spec = json!({"ips": [format!("10.136.0.{count}")]});
        Hooks::write(&hooks.object("SpiderReservedIP", "r", &spec))
    };
    let mut count = 0;
    let write = async || {
        count += 1;
        admitted(count).map(drop).map_err(anyhow::Error::msg)
    };
    poll::holds_async("the former one is served", Duration::from_secs(5), write).await.unwrap();
    hooks.configure_with(&json!(hooks.certificate("ca.crt")), false);
    hooks.bench.until("the new one is served", async || admitted(250).is_ok()).await;
}

/// As old and new replicas of an upgrade that changes them.
#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_want_other_names_do_not_replace_each_others_certificate() {
    const NAMES: &str = "SPIDERPOOL_WEBHOOK_EXTRA_DNS_NAMES";
    let hooks = Hooks::new("hook-names").await;
    let _old = hooks.controller("old", hooks.port, &[(NAMES, "old.test")]).await;
    let _new = hooks.controller("new", 0, &[(NAMES, "*.new.test")]).await;
    hooks.configure();
    hooks.wait_until_called().await;
    let before = hooks.certificate("tls.crt");
    // Longer than the pause between two issues of one replica.
    let stays = async || {
        anyhow::ensure!(hooks.certificate("tls.crt") == before, "it was replaced");
        Ok(())
    };
    poll::holds_async("the certificate stays", Duration::from_secs(8), stays).await.unwrap();
}

/// An empty Secret is filled by one of several; all serve what is in it.
#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_start_at_once_agree_on_a_certificate() {
    let hooks = Hooks::new("hook-race").await;
    let starts = ["a", "b", "c"].map(|name| hooks.controller(name, 0, &[]));
    let controllers = futures::future::join_all(starts).await;
    let written = controllers
        .iter()
        .filter(|controller| controller.log().unwrap().contains("certificate of the webhooks written"));
    assert_eq!(written.count(), 1);
    assert!(hooks.certificate("ca.crt").len() > 100);
}
