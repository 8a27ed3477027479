//! Keys and certificates of one cluster: one authority, one certificate per identity, made by openssl.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde_json::json;

use super::{
    paths::RunDir,
    plan::{ClusterId, Machine},
    process::{Cmd, write_whole},
};

const DAYS: &str = "30";

/// An identity the authority vouches for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// File name, without extension.
    pub file: String,
    pub common_name: String,
    pub organization: String,
    /// Subject alternative names in openssl's notation; empty for clients.
    pub names: String,
}

impl Identity {
    fn client(file: &str, common_name: &str, organization: &str) -> Self {
        Self {
            file: file.into(),
            common_name: common_name.into(),
            organization: organization.into(),
            names: String::new(),
        }
    }
}

/// Who exists in a cluster. Pure.
pub fn identities(id: ClusterId, nodes: u8) -> Vec<Identity> {
    let service = "kubernetes.default.svc";
    let mut all = vec![
        Identity {
            names: format!(
                "DNS:kubernetes,DNS:kubernetes.default,DNS:{service},DNS:{service}.cluster.local,DNS:localhost,IP:{},IP:{},IP:127.0.0.1",
                id.kubernetes_service(),
                id.address(Machine::ControlPlane)
            ),
            ..Identity::client("kube-apiserver", "kube-apiserver", "gonka-fleet-e2e")
        },
        Identity::client("kubelet-client", "kube-apiserver-kubelet-client", "system:masters"),
        Identity::client("front-proxy", "front-proxy", "gonka-fleet-e2e"),
        Identity::client("admin", "admin", "system:masters"),
    ];
    for component in ["kube-controller-manager", "kube-scheduler", "kube-proxy"] {
        all.push(Identity::client(
            component,
            &format!("system:{component}"),
            "gonka-fleet-e2e",
        ));
    }
    for machine in (1..=nodes).map(Machine::Node) {
        all.push(Identity {
            names: format!("DNS:{machine},IP:{}", id.address(machine)),
            ..Identity::client(&machine.to_string(), &format!("system:node:{machine}"), "system:nodes")
        });
    }
    all
}

/// Who gets a kubeconfig: everyone who calls the API server.
fn calls_the_api(identity: &Identity) -> bool {
    !matches!(
        identity.file.as_str(),
        "kube-apiserver" | "kubelet-client" | "front-proxy"
    )
}

/// Paths of one identity's certificate and key.
pub fn pair(pki: &Path, file: &str) -> (PathBuf, PathBuf) {
    (pki.join(format!("{file}.crt")), pki.join(format!("{file}.key")))
}

pub async fn make(run: &RunDir, id: ClusterId, nodes: u8) -> Result<()> {
    let pki = run.pki();
    let (ca, ca_key) = pair(&pki, "ca");
    let authority = [
        "-subj",
        "/CN=gonka-fleet-e2e",
        "-addext",
        "keyUsage=critical,keyCertSign,cRLSign",
    ];
    request(&ca, &ca_key)
        .args(authority)
        .text()
        .await
        .context("cannot make the cluster's authority")?;
    let sa = [
        "genpkey",
        "-algorithm",
        "EC",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-out",
    ];
    Cmd::new("openssl").args(sa).args([pki.join("sa.key")]).text().await?;
    let public = Cmd::new("openssl")
        .args(["pkey", "-pubout", "-in"])
        .args([pki.join("sa.key")])
        .text()
        .await?;
    write_whole(&pki.join("sa.pub"), public.as_bytes())?;
    let all = identities(id, nodes);
    futures::future::try_join_all(all.iter().map(|identity| certificate(&pki, identity))).await?;
    for identity in all.iter().filter(|i| calls_the_api(i)) {
        write_whole(
            &run.kubeconfig(&identity.file),
            kubeconfig(id, &pki, &identity.file).as_bytes(),
        )?;
    }
    Ok(())
}

fn request(certificate: &Path, key: &Path) -> Cmd {
    Cmd::new("openssl")
        .args([
            "req",
            "-x509",
            "-new",
            "-nodes",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-days",
            DAYS,
        ])
        .args([
            "-keyout".as_ref(),
            key.as_os_str(),
            "-out".as_ref(),
            certificate.as_os_str(),
        ])
}

async fn certificate(pki: &Path, identity: &Identity) -> Result<()> {
    let ((ca, ca_key), (crt, key)) = (pair(pki, "ca"), pair(pki, &identity.file));
    let subject = format!("/O={}/CN={}", identity.organization, identity.common_name);
    let mut openssl = request(&crt, &key)
        .args(["-CA".as_ref(), ca.as_os_str(), "-CAkey".as_ref(), ca_key.as_os_str()])
        .args(["-subj", &subject, "-addext", "basicConstraints=critical,CA:FALSE"])
        .args([
            "-addext",
            "keyUsage=digitalSignature",
            "-addext",
            "extendedKeyUsage=clientAuth,serverAuth",
        ]);
    if !identity.names.is_empty() {
        openssl = openssl.args(["-addext", &format!("subjectAltName={}", identity.names)]);
    }
    openssl
        .text()
        .await
        .with_context(|| format!("cannot make the certificate of {}", identity.common_name))?;
    fs::metadata(&crt)
        .map(drop)
        .with_context(|| format!("openssl left no {}", crt.display()))
}

/// JSON is YAML, and needs no quoting rules of its own.
pub fn kubeconfig(id: ClusterId, pki: &Path, user: &str) -> String {
    let (crt, key) = pair(pki, user);
    let cluster = id.prefix();
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": cluster,
        "clusters": [{"name": cluster, "cluster": {
            "server": format!("https://{}", id.api_server()), "certificate-authority": pki.join("ca.crt")}}],
        "users": [{"name": user, "user": {"client-certificate": crt, "client-key": key}}],
        "contexts": [{"name": cluster, "context": {"cluster": cluster, "user": user}}],
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_known_by_name_and_address_and_only_servers_carry_names() {
        let all = identities(ClusterId::try_from(8).unwrap(), 2);
        let n2 = all.iter().find(|i| i.file == "n2").unwrap();
        assert_eq!(n2.common_name, "system:node:n2");
        assert_eq!(n2.organization, "system:nodes");
        assert_eq!(n2.names, "DNS:n2,IP:10.108.0.12");
        let admin = all.iter().find(|i| i.file == "admin").unwrap();
        assert_eq!(
            (admin.organization.as_str(), admin.names.as_str()),
            ("system:masters", "")
        );
    }

    #[test]
    fn kubeconfig_names_the_right_server_and_key() {
        let text = kubeconfig(ClusterId::try_from(2).unwrap(), Path::new("/x/pki"), "admin");
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["clusters"][0]["cluster"]["server"], "https://10.102.0.2:6443");
        assert_eq!(value["users"][0]["user"]["client-key"], "/x/pki/admin.key");
    }

    #[tokio::test]
    async fn certificates_verify_against_their_authority() {
        let dir = tempfile::tempdir().unwrap();
        let id = ClusterId::try_from(8).unwrap();
        let run = RunDir::new(dir.path(), id).unwrap();
        for folder in [run.pki(), run.root().join("kubeconfig")] {
            fs::create_dir_all(folder).unwrap();
        }
        make(&run, id, 1).await.unwrap();
        let (ca, _) = pair(&run.pki(), "ca");
        let (n1, _) = pair(&run.pki(), "n1");
        let verify = Cmd::new("openssl")
            .args(["verify", "-verify_ip", "10.108.0.11", "-CAfile"])
            .args([&ca, &n1]);
        verify.text().await.unwrap();
        let stranger = Cmd::new("openssl")
            .args(["verify", "-verify_ip", "10.108.0.12", "-CAfile"])
            .args([&ca, &n1]);
        stranger.text().await.unwrap_err();
    }
}
