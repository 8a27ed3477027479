//! Thresholds of the burn-in as data: what a product must show, and who says so. A number that nobody measured is null and judges nothing.

use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

/// What is published, `docs/burn-in.md` explains it.
const PUBLISHED: &str = include_str!("limits.yaml");

/// A table: the published one, or what a fleet says instead.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Table {
    /// Schema.
    pub version: u32,
    /// One entry a product.
    pub products: Vec<Product>,
}

/// A product and its limits.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Product {
    /// What people call it.
    #[serde(rename = "product")]
    pub called: String,
    /// As NVML names it.
    pub names: Vec<String>,
    /// Exactly so many.
    #[serde(default)]
    pub multiprocessors: Limit,
    /// At least.
    #[serde(default)]
    pub memory_mebibytes: Limit,
    /// Highest clock, at least.
    #[serde(default)]
    pub boost_megahertz: Limit,
    /// Clock under load, at least.
    #[serde(default)]
    pub sustained_megahertz: Limit,
    /// Power limit in force, at least.
    #[serde(default)]
    pub power_limit_watts: Limit,
    /// Links that are up, exactly.
    #[serde(default)]
    pub nvlinks: Limit,
    /// Of all links, both ways together; shown beside what is measured.
    #[serde(default)]
    pub nvlink_gigabytes_per_second: Limit,
    /// Of a copy one way, at least.
    #[serde(default)]
    pub peer_gigabytes_per_second: Limit,
    /// At least.
    #[serde(default)]
    pub nonces_per_second: Limit,
    /// At least.
    #[serde(default)]
    pub teraflops: Limit,
}

/// A number with who says so.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// None: nobody measured it.
    pub value: Option<f64>,
    /// An address, a document, a fleet.
    pub source: String,
}

impl Default for Limit {
    fn default() -> Self {
        Self {
            value: None,
            source: "not measured".to_owned(),
        }
    }
}

impl Table {
    /// The published table, with another one's numbers in its place where that has some.
    pub fn load(file: Option<&Path>) -> anyhow::Result<Self> {
        let mut table = Self::parse(PUBLISHED).context("the published thresholds")?;
        if let Some(file) = file {
            let text = std::fs::read_to_string(file).with_context(|| format!("could not read {}", file.display()))?;
            let own = Self::parse(&text).with_context(|| format!("thresholds in {}", file.display()))?;
            table.put(own);
        }
        Ok(table)
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let table: Self = serde_yaml::from_str(text)?;
        anyhow::ensure!(
            table.version == 1,
            "version {} is not known: this is version 1",
            table.version
        );
        Ok(table)
    }

    /// Numbers of another table win, product by product and number by number.
    fn put(&mut self, own: Self) {
        for product in own.products {
            let Some(known) = self.products.iter_mut().find(|known| known.called == product.called) else {
                self.products.push(product);
                continue;
            };
            known.names.extend(product.names.clone());
            let mut theirs = product;
            for (known, own) in known.limits_mut().into_iter().zip(theirs.limits_mut()) {
                if own.value.is_some() {
                    *known = own.clone();
                }
            }
        }
    }

    /// What holds for a product.
    pub fn of(&self, name: &str) -> Option<&Product> {
        self.products
            .iter()
            .find(|product| product.names.iter().any(|known| known == name))
    }
}

impl Product {
    fn limits_mut(&mut self) -> [&mut Limit; 10] {
        [
            &mut self.multiprocessors,
            &mut self.memory_mebibytes,
            &mut self.boost_megahertz,
            &mut self.sustained_megahertz,
            &mut self.power_limit_watts,
            &mut self.nvlinks,
            &mut self.nvlink_gigabytes_per_second,
            &mut self.peer_gigabytes_per_second,
            &mut self.nonces_per_second,
            &mut self.teraflops,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_without_a_source_does_not_judge_and_one_with_it_has_an_address() {
        let mut table = Table::load(None).unwrap();
        for product in &mut table.products {
            let name = product.called.clone();
            for limit in product.limits_mut() {
                let measured = limit.source != "not measured";
                assert!(measured || limit.value.is_none(), "{name}: {limit:?}");
                if limit.value.is_some() {
                    assert!(limit.source.contains("://"), "{name}: {limit:?}");
                }
            }
        }
        for name in [
            "NVIDIA H100 PCIe",
            "NVIDIA H100 80GB HBM3",
            "NVIDIA H200",
            "NVIDIA B200",
        ] {
            assert!(table.of(name).is_some(), "{name}");
        }
        assert_eq!(table.of("NVIDIA A100"), None);
    }

    #[test]
    fn a_fleets_own_numbers_win_one_by_one() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let own = "version: 1\nproducts:\n- product: H200\n  names: []\n  noncesPerSecond: {value: 300, source: learned of 12 GPUs}\n- product: A100\n  names: [NVIDIA A100-SXM4-80GB]\n  multiprocessors: {value: 108, source: here}\n";
        std::fs::write(file.path(), own).unwrap();
        let table = Table::load(Some(file.path())).unwrap();
        let h200 = table.of("NVIDIA H200").unwrap();
        assert_eq!(h200.nonces_per_second.value, Some(300.0));
        assert_eq!(h200.multiprocessors.value, Some(132.0));
        assert!(table.of("NVIDIA A100-SXM4-80GB").is_some());
        std::fs::write(
            file.path(),
            "version: 1\nproducts:\n- product: H200\n  names: []\n  speed: 3\n",
        )
        .unwrap();
        assert!(Table::load(Some(file.path())).is_err());
    }
}
