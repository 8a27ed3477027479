//! Cluster DNS: CoreDNS as an ordinary Deployment, on two nodes when there are two.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::{
    ClusterResourceScope, NamespaceResourceScope, Resource,
    api::{
        apps::v1::Deployment,
        core::v1::{ConfigMap, Namespace, Service, ServiceAccount},
        rbac::v1::{ClusterRole, ClusterRoleBinding},
    },
};
use kube::{Api, Client, api::PostParams};
use serde::{Serialize, de::DeserializeOwned};

use crate::harness::{plan::ClusterId, process::until};

const NAMESPACE: &str = "kube-system";
const READY_LIMIT: Duration = Duration::from_secs(120);

pub async fn create(client: &Client, id: ClusterId, nodes: u8) -> Result<()> {
    // The API server makes its own namespaces shortly after it is ready.
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let there = until(READY_LIMIT, async || namespaces.get(NAMESPACE).await.is_ok());
    ensure!(
        there.await,
        "the API server made no namespace {NAMESPACE} within {READY_LIMIT:?}"
    );
    namespaced::<ServiceAccount>(client, "{metadata: {name: coredns}}").await?;
    cluster_wide::<ClusterRole>(client, ROLE).await?;
    cluster_wide::<ClusterRoleBinding>(client, BINDING).await?;
    namespaced::<ConfigMap>(client, COREFILE).await?;
    namespaced::<Deployment>(client, &DEPLOYMENT.replace("REPLICAS", &nodes.min(2).to_string())).await?;
    namespaced::<Service>(client, &SERVICE.replace("ADDRESS", &id.dns_service().to_string())).await
}

async fn namespaced<K>(client: &Client, yaml: &str) -> Result<()>
where
    K: Resource<Scope = NamespaceResourceScope> + kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    K: Clone + std::fmt::Debug + DeserializeOwned + Serialize,
{
    create_one::<K>(&Api::namespaced(client.clone(), NAMESPACE), yaml).await
}

async fn cluster_wide<K>(client: &Client, yaml: &str) -> Result<()>
where
    K: Resource<Scope = ClusterResourceScope> + kube::Resource<DynamicType = (), Scope = ClusterResourceScope>,
    K: Clone + std::fmt::Debug + DeserializeOwned + Serialize,
{
    create_one::<K>(&Api::all(client.clone()), yaml).await
}

async fn create_one<K: Clone + std::fmt::Debug + DeserializeOwned + Serialize>(api: &Api<K>, yaml: &str) -> Result<()> {
    let kind = std::any::type_name::<K>();
    let object: K = serde_yaml::from_str(yaml).with_context(|| format!("the DNS {kind} does not parse"))?;
    api.create(&PostParams::default(), &object)
        .await
        .with_context(|| format!("cannot create the DNS {kind}"))?;
    Ok(())
}

pub async fn wait_ready(client: &Client) -> Result<()> {
    let api: Api<Deployment> = Api::namespaced(client.clone(), NAMESPACE);
    let ready = until(READY_LIMIT, async || {
        let deployment = api.get("coredns").await.ok();
        deployment.is_some_and(|d| {
            d.status
                .is_some_and(|s| s.ready_replicas == d.spec.and_then(|s| s.replicas))
        })
    });
    ensure!(
        ready.await,
        "cluster DNS is not ready after {READY_LIMIT:?}; see `kubectl -n {NAMESPACE} describe pods`"
    );
    Ok(())
}

const ROLE: &str = r#"
metadata: {name: "gonka-fleet-e2e:coredns"}
rules:
- {apiGroups: [""], resources: [services, pods, namespaces], verbs: [list, watch]}
- {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}
"#;

const BINDING: &str = r#"
metadata: {name: "gonka-fleet-e2e:coredns"}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "gonka-fleet-e2e:coredns"}
subjects: [{kind: ServiceAccount, name: coredns, namespace: kube-system}]
"#;

const COREFILE: &str = r"
metadata: {name: coredns}
data:
  Corefile: |
    .:53 {
      errors
      health :8181 {
        lameduck 0s
      }
      ready :8182
      kubernetes cluster.local in-addr.arpa ip6.arpa
      cache 5
    }
";

const DEPLOYMENT: &str = r"
metadata: {name: coredns}
spec:
  replicas: REPLICAS
  selector: {matchLabels: {k8s-app: kube-dns}}
  template:
    metadata: {labels: {k8s-app: kube-dns}}
    spec:
      serviceAccountName: coredns
      dnsPolicy: Default
      priorityClassName: system-cluster-critical
      topologySpreadConstraints:
      - {maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway, labelSelector: {matchLabels: {k8s-app: kube-dns}}}
      containers:
      - name: coredns
        image: gonka.local/coredns:dev
        imagePullPolicy: Never
        args: [-conf, /etc/coredns/Corefile]
        readinessProbe: {httpGet: {path: /ready, port: 8182}, periodSeconds: 1}
        securityContext:
          allowPrivilegeEscalation: false
          readOnlyRootFilesystem: true
          capabilities: {drop: [ALL]}
        volumeMounts: [{name: conf, mountPath: /etc/coredns}]
      volumes: [{name: conf, configMap: {name: coredns}}]
";

const SERVICE: &str = r"
metadata: {name: kube-dns}
spec:
  clusterIP: ADDRESS
  selector: {k8s-app: kube-dns}
  ports: [{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53, protocol: TCP}]
";
