//! What happens to a fleet: moments with their times, drawn from a seed or written by people.

use network_simulator::scenario::verb::{Arguments, Verb};
use operator::machine::switches::SWITCHES;
use serde::{Deserialize, Serialize};
use strum::VariantArray as _;

use crate::plan::FleetPlan;
use crate::random::Random;

/// One moment.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Moment {
    /// Milliseconds from the beginning of the run.
    pub at: i64,
    /// What happens.
    #[serde(flatten)]
    pub what: Happening,
}

/// What may happen.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", tag = "do")]
#[expect(clippy::large_enum_variant, reason = "a story holds a few dozen of them")]
pub enum Happening {
    /// A machine loses its power for a while: pods, memory and addresses with it.
    #[serde(rename_all = "camelCase")]
    NodeLost {
        /// Number of the machine, from 1.
        machine: u32,
        /// For so many milliseconds.
        millis: i64,
    },
    /// A machine's cable is out for a while; what runs on it runs on.
    #[serde(rename_all = "camelCase")]
    NodeCut {
        /// Number of the machine.
        machine: u32,
        /// For so many milliseconds.
        millis: i64,
    },
    /// A blocking finding on a machine's GPUs, for a while.
    #[serde(rename_all = "camelCase")]
    GpuFinding {
        /// Number of the machine.
        machine: u32,
        /// For so many milliseconds.
        millis: i64,
    },
    /// A pod's containers end for good.
    #[serde(rename_all = "camelCase")]
    PodDies {
        /// Place among the pods that run, by name.
        pod: u32,
    },
    /// Somebody breaks the glass and deletes a pod.
    #[serde(rename_all = "camelCase")]
    PodDeleted {
        /// Place among the pods that run.
        pod: u32,
    },
    /// An engine's process ends.
    #[serde(rename_all = "camelCase")]
    EngineDies {
        /// Place among the pods that run.
        pod: u32,
    },
    /// `serve` is away for a moment.
    #[serde(rename_all = "camelCase")]
    ServeRestarts {
        /// Place among the pods that run.
        pod: u32,
        /// For so many milliseconds.
        millis: i64,
    },
    /// The owner wants another revision of the pods.
    #[serde(rename_all = "camelCase")]
    Rollout {
        /// A word that goes into the template.
        word: String,
        /// Place of the deployment.
        #[serde(default)]
        deployment: usize,
    },
    /// The owner edits what pods are made of, and maybe goes back on it soon.
    #[serde(rename_all = "camelCase")]
    Edited {
        /// What.
        field: Field,
        /// Which of a few values: the same one again is no edit.
        value: u32,
        /// Place of the deployment.
        #[serde(default)]
        deployment: usize,
    },
    /// Somebody drains a machine: it takes no more pods, and its pods are to be evicted, again and again.
    #[serde(rename_all = "camelCase")]
    Drained {
        /// Number of the machine.
        machine: u32,
        /// For so many milliseconds.
        millis: i64,
    },
    /// Somebody asks for a machine (`kubectl gonka maintain`), drains and reboots it once it is released, and withdraws the wish.
    #[serde(rename_all = "camelCase")]
    Maintained {
        /// Number of the machine.
        machine: u32,
        /// Withdrawn after so many milliseconds.
        millis: i64,
        /// `expectedMinutes`.
        minutes: i32,
        /// It lapses after so many milliseconds if it is not granted; 0 = never.
        lapses: i64,
        /// Hours of the day from now until its preferred ones begin.
        #[serde(skip_serializing_if = "Option::is_none")]
        preferred: Option<u32>,
    },
    /// Somebody breaks the glass of an object, and forgets it.
    #[serde(rename_all = "camelCase")]
    GlassBroken {
        /// Its kind.
        kind: Protected,
        /// Place among those of the kind, by name.
        place: u32,
    },
    /// Somebody sets the breaker of the host aside.
    Rearmed,
    /// A stranger's program sets a switch that we hold while a machine carries slots, or takes it off.
    #[serde(rename_all = "camelCase")]
    SwitchSet {
        /// Number of the machine.
        machine: u32,
        /// Place among the switches.
        switch: usize,
        /// Its value; absent = taken off.
        value: Option<String>,
    },
    /// A stranger pauses every health check, for a while.
    #[serde(rename_all = "camelCase")]
    ChecksPaused {
        /// For so many milliseconds.
        millis: i64,
    },
    /// The label that says that a machine has GPUs comes off every machine, and comes back.
    #[serde(rename_all = "camelCase")]
    LabelsFlap {
        /// After so many milliseconds.
        millis: i64,
    },
    /// The API server does not answer for a while.
    #[serde(rename_all = "camelCase")]
    ApiOutage {
        /// For so many milliseconds.
        millis: i64,
    },
    /// The operator's program ends, and begins again after a while.
    #[serde(rename_all = "camelCase")]
    OperatorDies {
        /// After so many more writes; 0 = at once.
        writes: u32,
        /// Away for so many milliseconds.
        millis: i64,
    },
    /// One of the operator's next writes goes wrong.
    #[serde(rename_all = "camelCase")]
    WriteFails {
        /// How.
        how: WriteFault,
    },
    /// Events of the API server come late, or are lost until the watch lists again.
    #[serde(rename_all = "camelCase")]
    WatchFails {
        /// So many of a thousand events are lost.
        lost_permille: u64,
        /// All others come so much later.
        late_millis: i64,
        /// For so many milliseconds.
        millis: i64,
    },
    /// Lists show what was there a while ago.
    #[serde(rename_all = "camelCase")]
    StaleLists {
        /// So many versions ago.
        versions: u64,
        /// For so many milliseconds.
        millis: i64,
    },
    /// A verb of the network's scenarios, with its arguments.
    #[serde(rename_all = "camelCase")]
    Network {
        /// The verb.
        verb: Verb,
        /// Its arguments.
        arguments: Arguments,
    },
}

impl Happening {
    /// How long it lasts, milliseconds.
    pub fn millis(&self) -> i64 {
        match self {
            Self::NodeLost { millis, .. }
            | Self::NodeCut { millis, .. }
            | Self::GpuFinding { millis, .. }
            | Self::ServeRestarts { millis, .. }
            | Self::Drained { millis, .. }
            | Self::Maintained { millis, .. }
            | Self::ChecksPaused { millis }
            | Self::LabelsFlap { millis }
            | Self::ApiOutage { millis }
            | Self::OperatorDies { millis, .. }
            | Self::WatchFails { millis, .. }
            | Self::StaleLists { millis, .. } => *millis,
            Self::Network { arguments, .. } => {
                let lasting = arguments.lasting.as_deref().unwrap_or_default();
                lasting.trim_end_matches("ms").parse().unwrap_or_default()
            }
            Self::PodDies { .. }
            | Self::PodDeleted { .. }
            | Self::EngineDies { .. }
            | Self::Rollout { .. }
            | Self::Edited { .. }
            | Self::GlassBroken { .. }
            | Self::Rearmed
            | Self::SwitchSet { .. }
            | Self::WriteFails { .. } => 0,
        }
    }

    /// The machine that somebody wishes to work on.
    pub fn wished_machine(&self) -> Option<u32> {
        match self {
            Self::Drained { machine, .. } | Self::Maintained { machine, .. } => Some(*machine),
            _ => None,
        }
    }

    /// In a few words.
    pub fn name(&self) -> String {
        match self {
            Self::NodeLost { machine, .. } => format!("n{machine} lost"),
            Self::NodeCut { machine, .. } => format!("n{machine} cut off"),
            Self::GpuFinding { machine, .. } => format!("finding on n{machine}"),
            Self::PodDies { .. } => "pod dies".to_owned(),
            Self::PodDeleted { .. } => "pod deleted".to_owned(),
            Self::EngineDies { .. } => "engine dies".to_owned(),
            Self::ServeRestarts { .. } => "serve restarts".to_owned(),
            Self::Rollout { .. } => "rollout".to_owned(),
            Self::Edited { field, .. } => format!("{field} edited"),
            Self::Drained { machine, .. } => format!("n{machine} drained"),
            Self::Maintained { machine, .. } => format!("n{machine} maintained"),
            Self::GlassBroken { kind, .. } => format!("glass of a {kind} broken"),
            Self::Rearmed => "breaker set aside".to_owned(),
            Self::SwitchSet { .. } => "switch set".to_owned(),
            Self::ChecksPaused { .. } => "checks paused".to_owned(),
            Self::LabelsFlap { .. } => "labels flap".to_owned(),
            Self::ApiOutage { .. } => "API outage".to_owned(),
            Self::OperatorDies { .. } => "operator dies".to_owned(),
            Self::WriteFails { how } => format!("write {how:?}"),
            Self::WatchFails { .. } => "watches fail".to_owned(),
            Self::StaleLists { .. } => "old lists".to_owned(),
            Self::Network { verb, arguments } => format!("{verb} {}", arguments.target),
        }
    }
}

/// What an owner edits.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, strum::Display)]
#[serde(rename_all = "camelCase")]
#[strum(serialize_all = "lowercase")]
pub enum Field {
    /// Image of the engine.
    Image,
    /// Revision of the model.
    Model,
    /// An argument of the engine.
    Argument,
    /// Number of spares.
    Spares,
}

/// What has a glass.
#[derive(
    Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, strum::Display, strum::IntoStaticStr, strum::VariantArray,
)]
#[serde(rename_all = "PascalCase")]
pub enum Protected {
    /// A slot pod.
    Pod,
    /// A slot's address.
    Service,
    /// A machine.
    Node,
    /// A machine as its agent sees it.
    GpuNode,
    /// The deployment.
    ModelDeployment,
    /// The host.
    GonkaHost,
    /// The schedule.
    SprintSchedule,
}

/// How a write goes wrong.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum WriteFault {
    /// It never arrives.
    Lost,
    /// It is carried out and its answer is lost.
    Unanswered,
    /// Somebody else was faster.
    Conflict,
}

/// Which kinds of moments are drawn, and how many.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// First moment of the story, milliseconds from the beginning.
    pub from_ms: i64,
    /// Last.
    pub until_ms: i64,
    /// How many.
    pub moments: usize,
    /// Machines there are.
    pub machines: u32,
    /// Pods there are.
    pub pods: u32,
    /// Deployments there are.
    pub deployments: usize,
}

impl Weather {
    /// Over a fleet, from and until so many milliseconds.
    pub fn over(fleet: &FleetPlan, from_ms: i64, until_ms: i64, moments: usize) -> Self {
        Self {
            from_ms,
            until_ms,
            moments,
            machines: fleet.machines,
            pods: fleet.all_pods().max(1).unsigned_abs(),
            deployments: fleet.deployments().len(),
        }
    }
}

/// A story from a seed, by time.
pub fn draw(seed: u64, weather: &Weather) -> Vec<Moment> {
    let mut random = Random::new(seed, "story");
    let mut story: Vec<Moment> = Vec::new();
    while story.len() < weather.moments {
        let at = random.between(weather.from_ms, weather.until_ms);
        let what = happening(&mut random, weather, story.len());
        let again = match what {
            // Who edits once often edits again at once.
            Happening::Edited { .. } => random.index(3),
            Happening::LabelsFlap { .. } => random.index(4),
            _ => 0,
        };
        story.push(Moment { at, what });
        for _ in 0..again.min(weather.moments - story.len()) {
            let at = at + random.between(100, 5_000);
            let what = match story.last().map(|moment| &moment.what) {
                Some(Happening::LabelsFlap { millis }) => Happening::LabelsFlap { millis: *millis },
                _ => edited(&mut random, weather),
            };
            story.push(Moment { at, what });
        }
    }
    story.sort_by_key(|moment| moment.at);
    story
}

fn edited(random: &mut Random, weather: &Weather) -> Happening {
    Happening::Edited {
        field: [Field::Image, Field::Model, Field::Argument, Field::Spares][random.index(4)],
        value: random.index(3) as u32,
        deployment: random.index(weather.deployments),
    }
}

fn happening(random: &mut Random, weather: &Weather, place: usize) -> Happening {
    let machine = random.between(1, i64::from(weather.machines)) as u32;
    let pod = random.between(0, i64::from(weather.pods) - 1) as u32;
    let millis = random.between(1_000, 120_000);
    match random.index(22) {
        0 => Happening::NodeLost { machine, millis },
        1 => Happening::NodeCut { machine, millis },
        2 => Happening::GpuFinding { machine, millis },
        3 => Happening::PodDies { pod },
        4 => Happening::PodDeleted { pod },
        5 => Happening::EngineDies { pod },
        6 => Happening::ServeRestarts {
            pod,
            millis: millis / 40,
        },
        7 => Happening::Rollout {
            word: format!("r{place}"),
            deployment: random.index(weather.deployments),
        },
        8 => Happening::ApiOutage { millis },
        9 => Happening::OperatorDies {
            writes: random.between(0, 6) as u32,
            millis: millis / 4,
        },
        10 => Happening::WriteFails {
            how: [WriteFault::Lost, WriteFault::Unanswered, WriteFault::Conflict][random.index(3)],
        },
        11 => Happening::WatchFails {
            lost_permille: random.between(0, 300).unsigned_abs(),
            late_millis: random.between(0, 5_000),
            millis,
        },
        12 => Happening::StaleLists {
            versions: random.between(1, 30).unsigned_abs(),
            millis,
        },
        13 => edited(random, weather),
        14 => Happening::Drained { machine, millis },
        15 => Happening::LabelsFlap { millis: millis / 40 },
        16 => maintained(random, machine),
        17 => Happening::SwitchSet {
            machine,
            // Our own mark is first, and the policies keep it.
            switch: random.between(1, SWITCHES.len() as i64 - 1) as usize,
            value: [None, Some("true"), Some("false"), Some("theirs")][random.index(4)].map(str::to_owned),
        },
        18 => Happening::ChecksPaused { millis },
        19 => Happening::GlassBroken {
            kind: Protected::VARIANTS[random.index(Protected::VARIANTS.len())],
            place: pod,
        },
        20 => Happening::Rearmed,
        _ => network(random, millis.unsigned_abs()),
    }
}

fn maintained(random: &mut Random, machine: u32) -> Happening {
    let millis = random.between(60_000, 600_000);
    let lapses = if random.index(3) == 0 {
        random.between(1_000, millis)
    } else {
        0
    };
    Happening::Maintained {
        machine,
        millis,
        minutes: random.between(1, 5) as i32,
        lapses,
        preferred: (random.index(4) == 0).then(|| random.between(0, 23) as u32),
    }
}

fn network(random: &mut Random, millis: u64) -> Happening {
    let endpoint = random.between(1, 3);
    let (verb, target) = match random.index(5) {
        0 => (Verb::Stop, format!("endpoint/{endpoint}")),
        1 => (Verb::Stall, format!("rpc/{endpoint}")),
        2 => (Verb::Fork, format!("rpc/{endpoint}")),
        3 => (Verb::Skew, format!("rpc/{endpoint}")),
        _ => (Verb::Stop, "dapi/admin".to_owned()),
    };
    let arguments = Arguments {
        target,
        lasting: Some(format!("{millis}ms")),
        ms: (verb == Verb::Skew).then_some(20_000),
        ..Arguments::default()
    };
    Happening::Network { verb, arguments }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEATHER: Weather = Weather {
        from_ms: 1_000,
        until_ms: 9_000,
        moments: 60,
        machines: 4,
        pods: 4,
        deployments: 2,
    };

    #[test]
    fn a_seed_draws_one_story_and_another_seed_another() {
        let story = draw(3, &WEATHER);
        assert_eq!(story, draw(3, &WEATHER));
        assert_ne!(story, draw(4, &WEATHER));
        assert!(story.windows(2).all(|pair| pair[0].at <= pair[1].at));
    }

    #[test]
    fn a_story_is_written_and_read_back_as_it_was() {
        let story = draw(5, &WEATHER);
        let text = serde_yaml::to_string(&story).expect("YAML");
        let read: Vec<Moment> = serde_yaml::from_str(&text).expect("a story");
        assert_eq!(read, story, "{text}");
    }
}
