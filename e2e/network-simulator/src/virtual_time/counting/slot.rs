//! One ML node that counts: what it is at a moment, and what it would say.

use crate::{event::Start, exam::book::counted::Batch, noise, scenario::HostSection, truth::Unit};

/// A generation under way.
#[derive(Debug, Clone)]
pub struct Run {
    pub id: u64,
    pub start: Start,
    pub started_ms: u64,
    pub rate_milli: u64,
    /// Places that DAPI has taken, or that are lost.
    pub delivered: u64,
}

impl Run {
    /// What there is at a moment that was not delivered yet.
    pub fn batch(&self, now_ms: u64) -> Batch {
        let made = noise::nonces(self.rate_milli, now_ms.saturating_sub(self.started_ms));
        Batch {
            node_num: self.start.node_num,
            group: 0,
            places: self.delivered..made.max(self.delivered),
        }
    }
}

/// A node.
#[derive(Debug, Clone)]
pub struct Slot {
    pub id: String,
    pub run: Option<Run>,
    usual_model: String,
    /// The model in memory, or on its way there, and when it serves.
    loaded: Option<(String, u64)>,
    rate_milli: u64,
    noise_permille: u32,
    percent: u32,
    crashed: bool,
    silent: bool,
    lost_percent: u32,
    /// How often its memory was lost.
    losses: u32,
}

impl Slot {
    /// Loaded since before the run began.
    pub fn ready(id: String, model: String, host: &HostSection) -> Self {
        Self {
            id,
            run: None,
            loaded: Some((model.clone(), 0)),
            usual_model: model,
            rate_milli: u64::from(host.nonces_per_second) * 1000,
            noise_permille: host.noise_permille,
            percent: 100,
            crashed: false,
            silent: false,
            lost_percent: 0,
            losses: 0,
        }
    }

    /// Requests from and to it that are lost, of a hundred.
    pub fn lost_percent(&self) -> u32 {
        self.lost_percent
    }

    pub fn set_lost_percent(&mut self, percent: u32) {
        self.lost_percent = percent;
    }

    pub fn usual_model(&self) -> &str {
        &self.usual_model
    }

    /// Whether it answers and works.
    pub fn is_well(&self) -> bool {
        !self.crashed && !self.silent
    }

    /// Whether it is there and says nothing.
    pub fn is_silent(&self) -> bool {
        self.silent
    }

    /// The model that it serves.
    pub fn model(&self, now_ms: u64) -> Option<&str> {
        let (model, since) = self.loaded.as_ref()?;
        (*since <= now_ms).then_some(model.as_str())
    }

    pub fn has_model(&self, now_ms: u64) -> bool {
        self.model(now_ms).is_some()
    }

    pub fn is_serving(&self, model: &str, now_ms: u64) -> bool {
        self.model(now_ms) == Some(model)
    }

    /// Nonces in 1000 seconds in the exam of a stage.
    pub fn rate(&self, seed: &str, stage_height: i64) -> u64 {
        let usual = self.rate_milli * u64::from(self.percent) / 100;
        let stage = stage_height.to_string();
        noise::vary(usual, self.noise_permille, &[seed, &stage, &self.id])
    }

    /// How long it takes for so many nonces.
    pub fn ms_for(&self, nonces: u32) -> u64 {
        let rate = (self.rate_milli * u64::from(self.percent) / 100).max(1);
        (u64::from(nonces) * 1_000_000).div_ceil(rate)
    }

    pub fn load(&mut self, model: &str, ready_ms: u64) {
        self.run = None;
        self.loaded = Some((model.to_owned(), ready_ms));
    }

    pub fn unload(&mut self) {
        self.run = None;
        self.loaded = None;
    }

    /// The process ends and takes its memory with it.
    pub fn crash(&mut self) {
        self.unload();
        self.crashed = true;
        self.losses += 1;
    }

    /// It is there again, with nothing loaded if it had crashed.
    pub fn recover(&mut self) {
        self.crashed = false;
        self.silent = false;
        self.lost_percent = 0;
        self.percent = 100;
    }

    /// Cut off: what it generates meanwhile is delivered later, if anybody still wants it.
    pub fn set_silent(&mut self, silent: bool) {
        self.silent = silent;
    }

    pub fn set_percent(&mut self, percent: u32) {
        self.percent = percent;
    }

    /// Another number when [`Slot::unit`] would be another.
    pub fn mark(&self, now_ms: u64) -> u64 {
        let flags = u64::from(self.crashed) | u64::from(self.silent) << 1 | u64::from(self.has_model(now_ms)) << 2;
        flags | u64::from(self.percent) << 3 | u64::from(self.losses) << 40
    }

    /// The truth about it.
    pub fn unit(&self, seed: &str, stage_height: i64, now_ms: u64) -> Unit {
        let model = self.model(now_ms);
        Unit {
            id: format!("{} {}", self.id, self.losses),
            node_id: Some(self.id.clone()),
            model: model.unwrap_or(&self.usual_model).to_owned(),
            rate_milli: self.rate(seed, stage_height),
            healthy: !self.crashed,
            loaded: model.is_some(),
            reachable: !self.silent,
            assignable: true,
        }
    }
}
