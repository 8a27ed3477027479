//! What a forward pass leaves behind when asked to, for comparison with published intermediate values.

/// Last token's state after each layer's reflection, and the routing.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    /// One entry per layer.
    pub layers: Vec<LayerTrace>,
    /// The newest routing decision: after a run, that of the last token in the last layer.
    pub last_routed: Option<Routed>,
    /// The narrowest decision of the run: smaller than the noise of the arithmetic means another machine may have
    /// chosen another expert.
    pub narrowest_margin: f32,
}

/// One layer.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerTrace {
    /// First member of the layer's output.
    pub hidden: Vec<f32>,
    /// Second member.
    pub residual: Vec<f32>,
}

/// One token's experts.
#[derive(Debug, Clone, PartialEq)]
pub struct Routed {
    /// Chosen experts, best first.
    pub experts: Vec<usize>,
    /// Their weights, summing to one.
    pub weights: Vec<f32>,
    /// Logit of the worst chosen expert minus that of the best one left out.
    pub margin: f32,
}

impl Default for Trace {
    fn default() -> Self {
        Self {
            layers: Vec::new(),
            last_routed: None,
            narrowest_margin: f32::INFINITY,
        }
    }
}

impl Trace {
    pub(super) fn routed(&mut self, routed: Routed) {
        self.narrowest_margin = self.narrowest_margin.min(routed.margin);
        self.last_routed = Some(routed);
    }
}
