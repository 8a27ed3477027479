//! Metrics as a scraper reads them: from the pods' own addresses, which the host of a test cluster reaches.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt as _};

/// Where the operator and the agent serve their metrics.
const PORT: u16 = 9490;

/// One line of a page.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// Name of the metric.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

/// Lines of one pod or of several.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page(Vec<Line>);

impl Page {
    /// Reads the text format; lines that are none of it are left out.
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        Self(lines.filter_map(line).collect())
    }

    /// The sum of a metric for each value of one of its labels.
    pub fn by(&self, name: &str, label: &str) -> BTreeMap<String, f64> {
        let mut sums = BTreeMap::new();
        for line in self.0.iter().filter(|line| line.name == name) {
            let value = line.labels.get(label).cloned().unwrap_or_default();
            *sums.entry(value).or_insert(0.0) += line.value;
        }
        sums
    }

    /// The sum of a metric over all of its labels.
    pub fn sum(&self, name: &str) -> f64 {
        self.0
            .iter()
            .filter(|line| line.name == name)
            .map(|line| line.value)
            .sum()
    }
}

fn line(text: &str) -> Option<Line> {
    let (metric, value) = text.trim().rsplit_once(' ')?;
    let value = value.parse().ok()?;
    let (name, labels) = match metric.split_once('{') {
        Some((name, rest)) => (name, labels(rest.strip_suffix('}')?)?),
        None => (metric, BTreeMap::new()),
    };
    Some(Line {
        name: name.to_owned(),
        labels,
        value,
    })
}

/// `a="1",b="x\"y"`.
fn labels(text: &str) -> Option<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (name, quoted) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut characters = quoted.char_indices();
        let end = loop {
            match characters.next()? {
                (_, '\\') => match characters.next()?.1 {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                (at, '"') => break at,
                (_, other) => value.push(other),
            }
        };
        labels.insert(name.to_owned(), value);
        rest = quoted.get(end + 1..)?.trim_start_matches(',');
    }
    Some(labels)
}

/// Where the pods of a role are: name, address and node of each.
#[derive(Clone, Debug)]
pub struct Places(Vec<(String, String, String)>);

impl Places {
    /// Asks the API server for them (`operator`, `agent`).
    pub async fn of_role(client: &Client, role: &str) -> Result<Self> {
        let pods: Api<Pod> = Api::all(client.clone());
        let with_role = ListParams::default().labels(&format!("{}={role}", crds::labels::ROLE));
        let pods = pods.list(&with_role).await.context("pods cannot be listed")?;
        ensure!(!pods.items.is_empty(), "there is no pod of role {role}");
        let place = |pod: Pod| {
            let name = pod.name_any();
            let address = pod.status.as_ref().and_then(|status| status.pod_ip.clone());
            let address = address.with_context(|| format!("pod {name} has no address yet"))?;
            Ok((
                name,
                address,
                pod.spec.and_then(|spec| spec.node_name).unwrap_or_default(),
            ))
        };
        Ok(Self(pods.into_iter().map(place).collect::<Result<_>>()?))
    }

    /// The page of each, and the node it is on. Needs no API server.
    pub async fn read(&self) -> Result<Vec<(String, Page)>> {
        let http = reqwest::Client::builder()
            .timeout(Duration::from_secs(5))
            .build()
            .context("no HTTP client")?;
        let mut pages = Vec::new();
        for (name, address, node) in &self.0 {
            let text = http
                .get(format!("http://{address}:{PORT}/metrics"))
                .send()
                .await
                .and_then(reqwest::Response::error_for_status)
                .with_context(|| format!("pod {name} shows no metrics"))?
                .text()
                .await
                .with_context(|| format!("metrics of pod {name} broke off"))?;
            pages.push((node.clone(), Page::parse(&text)));
        }
        Ok(pages)
    }
}

/// Pages of every pod of a role (`operator`, `agent`), by the node the pod is on.
pub async fn of_role(client: &Client, role: &str) -> Result<BTreeMap<String, Page>> {
    let mut pages: BTreeMap<String, Page> = BTreeMap::new();
    for (node, page) in Places::of_role(client, role).await?.read().await? {
        pages.entry(node).or_default().0.extend(page.0);
    }
    Ok(pages)
}

/// All replicas of the operator as one page.
pub async fn operator(client: &Client) -> Result<Page> {
    let pages = of_role(client, crds::labels::ROLE_OPERATOR).await?;
    Ok(Page(pages.into_values().flat_map(|page| page.0).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_with_their_labels_and_summed() {
        let page = Page::parse(
            "# HELP writes Writes.\n# TYPE writes counter\nwrites{controller=\"a\",result=\"ok\"} 2\nwrites{controller=\"a\",result=\"no \\\"way\\\", {x}\"} 1\nwrites{controller=\"b\"} 4\nleader 1\nnonsense\n",
        );
        assert_eq!(
            page.by("writes", "controller"),
            BTreeMap::from([("a".to_owned(), 3.0), ("b".to_owned(), 4.0)])
        );
        assert_eq!(page.by("writes", "result").get("no \"way\", {x}"), Some(&1.0));
        assert!((page.sum("leader") - 1.0).abs() < f64::EPSILON);
        assert!(page.sum("absent").abs() < f64::EPSILON);
    }
}
