//! The operator's chain reader in virtual time: what endpoints show becomes news, news become views, and the operator's own
//! decision says what is believed. Sockets are left out, nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;

use crds::sprint_schedule::{ChainParameters, SprintScheduleSpec};
use network_simulator::faults::{ENDPOINTS, Port};
use network_simulator::http::gate::lie;
use network_simulator::network::Confirmation;
use network_simulator::views::{View as Shown, confirmation_phase, rest_epoch, rest_exam, rpc, shown_seed};
use network_simulator::virtual_time::door::Door;
use operator::chain::answers::{self, Block, Clock, Event, EventPhase};
use operator::chain::decide::{self, Memory, Observed, Wanted};
use operator::chain::view::{self, Failure, News, View};
use operator::facts::Facts;

/// Most blocks that are fetched after a gap.
const GAP_BLOCKS: i64 = 8;
/// Time between questions that change rarely.
const RARELY_MS: i64 = 20_000;

/// The reader of one schedule.
#[derive(Debug)]
pub struct Reader {
    schedule: String,
    spec: SprintScheduleSpec,
    views: BTreeMap<String, View>,
    memory: Memory,
    wanted: Wanted,
    parameters: Option<Arc<ChainParameters>>,
    facts: Arc<Facts>,
    rarely_ms: i64,
}

fn silent() -> Failure {
    Failure::Unreachable("no answer".to_owned())
}

impl Reader {
    /// A reader that goes on with what an earlier process kept on disk.
    pub fn new(schedule: &str, spec: SprintScheduleSpec, kept: Option<&Memory>) -> Self {
        // What is kept on disk is what serde writes; the rest is gone with the process.
        let memory = kept.map(on_disk).unwrap_or_default();
        Self {
            schedule: schedule.to_owned(),
            spec,
            views: BTreeMap::new(),
            memory,
            wanted: Wanted::default(),
            parameters: None,
            facts: Arc::new(Facts {
                schedule: schedule.to_owned(),
                ..Facts::default()
            }),
            rarely_ms: i64::MIN,
        }
    }

    /// What is believed.
    pub fn facts(&self) -> &Arc<Facts> {
        &self.facts
    }

    /// To be kept on disk.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Reads every endpoint and decides. True when the facts are others than before.
    pub fn read(&mut self, door: &mut Door<'_>, now_ms: i64) -> bool {
        let rarely = now_ms.saturating_sub(self.rarely_ms) >= RARELY_MS;
        if rarely {
            self.rarely_ms = now_ms;
        }
        for index in 0..ENDPOINTS {
            let name = format!("rpc-{}", index + 1);
            let mut view = self.views.remove(&name).unwrap_or_default();
            read_rpc(door, index, &mut view);
            self.read_rest(door, index, &mut view);
            if rarely {
                view.apply(News::Upgrade {
                    plan: None,
                    last: None,
                    votes: None,
                });
            }
            self.views.insert(name, view);
        }
        let before = self.facts.clone();
        let asked = self.wanted.clone();
        self.decide(now_ms);
        if self.wanted.blocks.iter().any(|height| !asked.blocks.contains(height)) {
            self.read_older(door);
            self.decide(now_ms);
        }
        before != self.facts
    }

    /// Judges again what is known: silence ages it.
    pub fn decide(&mut self, now_ms: i64) {
        let observed = Observed {
            schedule: &self.schedule,
            spec: &self.spec,
            views: &self.views,
            now_ms,
        };
        let decision = decide::decide(&self.memory, &observed);
        self.memory = decision.memory;
        self.wanted = decision.wanted;
        self.facts = Arc::new(decision.facts);
    }

    fn read_rest(&mut self, door: &mut Door<'_>, index: usize, view: &mut View) {
        let wants_preserved = self.wanted.preserved;
        let Ok(shown) = door.view(Port::Rest(index)) else {
            return view.apply(News::Failed(view::Door::Rest, silent()));
        };
        if shown.height() == 0 {
            return view.apply(News::Failed(view::Door::Rest, silent()));
        }
        match self.clock(&shown) {
            Ok(clock) => view.apply(News::Clock(Box::new(clock))),
            Err(failure) => view.apply(News::Failed(view::Door::Rest, failure)),
        }
        if wants_preserved && let Ok(preserved) = answers::preserved(&rest_exam::preserved_nodes_snapshot(&shown)) {
            view.apply(News::Preserved(preserved));
        }
    }

    /// `epoch_info` as a value; through JSON where an endpoint lies, and once for the parameters.
    fn clock(&mut self, shown: &Shown<'_>) -> Result<Clock, Failure> {
        let known = self.parameters.as_ref().filter(|_| shown.fault.lies.is_empty());
        let Some(parameters) = known else {
            let mut answer = rest_epoch::epoch_info(shown);
            lie(&mut answer, &shown.fault.lies);
            let clock = answers::clock(&answer)?;
            if shown.fault.lies.is_empty() {
                self.parameters = Some(Arc::new(clock.parameters.clone()));
            }
            return Ok(clock);
        };
        let height = shown.height();
        let epoch = shown.latest_epoch() as i64;
        let mut parameters = ChainParameters::clone(parameters);
        parameters.source_height = height;
        Ok(Clock {
            height,
            epoch,
            poc_start: if epoch == 0 {
                -shown.net.lengths().epoch_shift
            } else {
                shown.stages().poc_start
            },
            parameters,
            event: shown.confirmation().map(|event| announced(event, height)),
        })
    }

    fn read_older(&mut self, door: &mut Door<'_>) {
        for index in 0..ENDPOINTS {
            let Some(view) = self.views.get_mut(&format!("rpc-{}", index + 1)) else {
                continue;
            };
            let Ok(shown) = door.view(Port::Rpc(index)) else {
                continue;
            };
            for height in &self.wanted.blocks {
                if let Some(block) = block(&shown, *height) {
                    view.apply(News::Older(block));
                }
            }
        }
    }
}

fn read_rpc(door: &mut Door<'_>, index: usize, view: &mut View) {
    let Ok(shown) = door.view(Port::Rpc(index)) else {
        return view.apply(News::Failed(view::Door::Rpc, silent()));
    };
    if shown.height() == 0 {
        return view.apply(News::Failed(view::Door::Rpc, silent()));
    }
    if !shown.fault.lies.is_empty() {
        let mut answer = rpc::status(&shown);
        lie(&mut answer, &shown.fault.lies);
        return match answers::status(&answer) {
            Ok(status) => view.apply(News::Tip {
                block: status.block,
                catching_up: Some(status.catching_up),
            }),
            Err(error) => view.apply(News::Failed(view::Door::Rpc, error.into())),
        };
    }
    let newest = shown.height();
    let known = view.newest().map_or(newest - 1, |block| block.height);
    for height in (known + 1).max(newest - GAP_BLOCKS)..newest {
        if let Some(block) = block(&shown, height) {
            view.apply(News::Tip {
                block,
                catching_up: None,
            });
        }
    }
    if let Some(block) = block(&shown, newest) {
        view.apply(News::Tip {
            block,
            catching_up: Some(false),
        });
    }
}

fn on_disk(memory: &Memory) -> Memory {
    Memory {
        tip: None,
        pace_from: None,
        endpoints: BTreeMap::new(),
        ..memory.clone()
    }
}

fn block(shown: &Shown<'_>, height: i64) -> Option<Block> {
    let block = shown.block(height)?;
    Some(Block {
        chain_id: shown.net.scenario.network.chain_id.clone(),
        height,
        hash: block.hash,
        time_ms: i64::try_from(block.unix_ms).unwrap_or(i64::MAX),
    })
}

fn announced(event: &Confirmation, height: i64) -> Event {
    Event {
        trigger_height: event.window.stage_height,
        generation_start_height: event.window.start,
        phase: match confirmation_phase(event, height).0 {
            1 => EventPhase::Grace,
            2 => EventPhase::Generation,
            3 => EventPhase::Validation,
            _ => EventPhase::Completed,
        },
        seed: shown_seed(event, height).to_owned(),
    }
}
