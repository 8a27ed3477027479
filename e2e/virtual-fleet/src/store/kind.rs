//! The kinds that the fleet is made of.

use std::fmt;

use strum::VariantArray as _;

/// A kind of objects.
#[derive(
    Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, strum::Display, strum::EnumString, strum::VariantArray,
)]
pub enum Kind {
    /// Clock of a network.
    SprintSchedule,
    /// A participant account.
    GonkaHost,
    /// A model on slots.
    ModelDeployment,
    /// A machine as its agent sees it.
    GpuNode,
    /// A record.
    SprintRun,
    /// A pod.
    Pod,
    /// A slot's address.
    Service,
    /// A slot's assignment.
    EndpointSlice,
    /// A deployment's disruption budget.
    PodDisruptionBudget,
    /// A pod template on record.
    ControllerRevision,
    /// Account of slot pods.
    ServiceAccount,
    /// Keys.
    ConfigMap,
    /// A machine.
    Node,
    /// A stranger's watch over machines, of medik8s.
    NodeHealthCheck,
}

impl Kind {
    /// Changes are told to the operator; the others are listed.
    pub fn is_watched(self) -> bool {
        self != Self::NodeHealthCheck
    }

    /// All kinds that are watched.
    pub fn watched() -> impl Iterator<Item = Self> {
        Self::VARIANTS.iter().copied().filter(|kind| kind.is_watched())
    }
}

/// One object's place.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Id {
    /// Kind.
    pub kind: Kind,
    /// Namespace; empty for cluster-scoped kinds.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Id {
    /// An object's place.
    pub fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        Self {
            kind,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}
