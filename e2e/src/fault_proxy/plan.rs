//! What is to happen to which request, decided from the request, the plan and what was counted so far. Pure.

use std::time::Duration;

use super::call::{Call, EVENTS, Verb};

/// Whose writes are counted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Of {
    /// Every write but Events.
    All,
    /// Those of one controller.
    Controller(String),
    /// Those of one object, by resource and name.
    Object(String, String),
}

impl Of {
    pub fn counts(&self, call: &Call) -> bool {
        call.verb.is_write()
            && call.controller != EVENTS
            && match self {
                Self::All => true,
                Self::Controller(name) => call.controller == *name,
                Self::Object(resource, name) => call.resource == *resource && call.name == *name,
            }
    }
}

/// What happens to a write that is struck.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum How {
    /// It is carried out and nobody hears of it; neither it nor any later one is answered.
    AnswerLost,
    /// It never arrives; neither it nor any later one is answered.
    NeverArrived,
    /// The server answers this instead of carrying it out; later ones pass.
    Refused(u16),
    /// It is carried out, the server answers this nevertheless; later ones pass.
    Denied(u16),
}

/// The n-th write of somebody, from 1 on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Strike {
    pub of: Of,
    pub nth: u64,
    pub how: How,
}

/// What happens to watches of a kind.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Lag {
    /// Every event comes this much later.
    Late(Duration),
    /// Every k-th event is lost; bookmarks are not.
    EveryKthLost(u64),
    /// Deletions are lost.
    DeletionsLost,
    /// The stream stays open and says nothing; what it held back comes when this is over.
    Stalled,
    /// The stream ends with 410, and so does every new one.
    Gone,
}

/// Trouble with the reads of a kind.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Trouble {
    /// Plural of the kind; empty for all.
    pub resource: String,
    /// What happens to watches.
    pub lag: Option<Lag>,
    /// Which lists are answered as they were when the proxy was told to remember.
    pub stale: Option<Stale>,
}

/// Lists that are old.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stale {
    /// Those over all namespaces, which watches begin with.
    Watched,
    /// All.
    Every,
}

/// Everything that is to go wrong.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Plan {
    pub strike: Option<Strike>,
    pub troubles: Vec<Trouble>,
}

/// What becomes of a write.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fate {
    Pass,
    /// Carried out, then nothing is said.
    PassInSilence,
    /// Nothing is done and nothing said.
    Silence,
    /// Answered without being carried out.
    Answer(u16),
    /// Carried out, and answered with something else.
    PassAndAnswer(u16),
}

/// What becomes of one line of a watch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Line {
    Pass,
    Lost,
    /// So long after it came.
    After(Duration),
    /// When the plan is another.
    Held,
    /// The stream ends as if its version were too old.
    Gone,
}

impl Plan {
    /// A plan of one strike.
    pub fn strike(of: Of, nth: u64, how: How) -> Self {
        Self {
            strike: Some(Strike { of, nth, how }),
            troubles: Vec::new(),
        }
    }

    /// A plan of troubles with reads.
    pub fn troubles(troubles: impl IntoIterator<Item = Trouble>) -> Self {
        Self {
            strike: None,
            troubles: troubles.into_iter().collect(),
        }
    }

    /// `counted` writes that the strike counts came before this one; `struck` when the strike has fallen.
    pub fn write(&self, call: &Call, counted: u64, struck: bool) -> Fate {
        let Some(strike) = &self.strike else { return Fate::Pass };
        let silent = matches!(strike.how, How::AnswerLost | How::NeverArrived);
        if struck {
            return if silent { Fate::Silence } else { Fate::Pass };
        }
        if !strike.of.counts(call) || counted + 1 != strike.nth {
            return Fate::Pass;
        }
        match strike.how {
            How::AnswerLost => Fate::PassInSilence,
            How::NeverArrived => Fate::Silence,
            How::Refused(code) => Fate::Answer(code),
            How::Denied(code) => Fate::PassAndAnswer(code),
        }
    }

    /// `number` events came before this one on its stream.
    pub fn line(&self, call: &Call, kind: &str, number: u64) -> Line {
        if kind == "BOOKMARK" {
            return self.lag(call).map_or(Line::Pass, |lag| match lag {
                Lag::Stalled => Line::Held,
                Lag::Gone => Line::Gone,
                Lag::Late(delay) => Line::After(delay),
                // A later version tells the reader that nothing is missing.
                Lag::EveryKthLost(_) | Lag::DeletionsLost => Line::Pass,
            });
        }
        match self.lag(call) {
            Some(Lag::Late(delay)) => Line::After(delay),
            Some(Lag::EveryKthLost(k)) if (number + 1).is_multiple_of(k.max(1)) => Line::Lost,
            Some(Lag::DeletionsLost) if kind == "DELETED" => Line::Lost,
            None | Some(Lag::EveryKthLost(_) | Lag::DeletionsLost) => Line::Pass,
            Some(Lag::Stalled) => Line::Held,
            Some(Lag::Gone) => Line::Gone,
        }
    }

    /// Whether a list is answered from memory.
    pub fn is_stale(&self, call: &Call) -> bool {
        call.verb == Verb::List
            && self.of(call).any(|trouble| match trouble.stale {
                None => false,
                Some(Stale::Watched) => call.namespace.is_empty(),
                Some(Stale::Every) => true,
            })
    }

    /// Whether any watch ends by it.
    pub fn ends_watches(&self) -> bool {
        self.troubles.iter().any(|trouble| trouble.lag == Some(Lag::Gone))
    }

    /// Whether open watches end now.
    pub fn is_gone(&self, call: &Call) -> bool {
        self.lag(call) == Some(Lag::Gone)
    }

    fn lag(&self, call: &Call) -> Option<Lag> {
        self.of(call).find_map(|trouble| trouble.lag)
    }

    fn of<'a>(&'a self, call: &'a Call) -> impl Iterator<Item = &'a Trouble> {
        self.troubles
            .iter()
            .filter(|trouble| trouble.resource.is_empty() || trouble.resource == call.resource)
    }
}

impl Trouble {
    /// Watches of a kind go wrong like this.
    pub fn watch(resource: &str, lag: Lag) -> Self {
        Self {
            resource: resource.to_owned(),
            lag: Some(lag),
            stale: None,
        }
    }

    /// Lists of a kind are old, and its watches late.
    pub fn old(resource: &str, stale: Stale, late: Duration) -> Self {
        Self {
            resource: resource.to_owned(),
            lag: Some(Lag::Late(late)),
            stale: Some(stale),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(verb: Verb, resource: &str, controller: &str) -> Call {
        Call {
            verb,
            resource: resource.to_owned(),
            subresource: String::new(),
            namespace: "gonka".to_owned(),
            name: "a".to_owned(),
            controller: controller.to_owned(),
        }
    }

    #[test]
    fn the_nth_write_is_struck_and_no_other() {
        let plan = Plan::strike(Of::Controller("gonka-host".to_owned()), 2, How::AnswerLost);
        let write = call(Verb::Apply, "gonkahosts", "gonka-host");
        assert_eq!(plan.write(&write, 0, false), Fate::Pass);
        assert_eq!(plan.write(&write, 1, false), Fate::PassInSilence);
        assert_eq!(
            plan.write(&call(Verb::Create, "pods", "model-deployment"), 1, false),
            Fate::Pass
        );
        assert_eq!(plan.write(&call(Verb::Create, EVENTS, EVENTS), 1, false), Fate::Pass);
    }

    #[test]
    fn after_a_fatal_strike_nothing_is_answered_and_after_a_refusal_everything_is() {
        let write = call(Verb::Create, "pods", "model-deployment");
        let fatal = Plan::strike(Of::All, 1, How::NeverArrived);
        assert_eq!(fatal.write(&write, 0, false), Fate::Silence);
        assert_eq!(fatal.write(&write, 7, true), Fate::Silence);
        let refusal = Plan::strike(Of::All, 1, How::Refused(409));
        assert_eq!(refusal.write(&write, 0, false), Fate::Answer(409));
        assert_eq!(refusal.write(&write, 1, true), Fate::Pass);
        let denial = Plan::strike(Of::All, 1, How::Denied(500));
        assert_eq!(denial.write(&write, 0, false), Fate::PassAndAnswer(500));
    }

    #[test]
    fn one_object_is_counted_by_its_name() {
        let of = Of::Object("sprintruns".to_owned(), "a".to_owned());
        assert!(of.counts(&call(Verb::Apply, "sprintruns", "sprint-run")));
        assert!(!of.counts(&call(Verb::Apply, "pods", "sprint-run")));
        assert!(!of.counts(&call(Verb::Get, "sprintruns", "")));
    }

    #[test]
    fn events_of_a_kind_are_lost_late_or_held_and_others_pass() {
        let pods = call(Verb::Watch, "pods", "");
        let line = |lag, kind, number| Plan::troubles([Trouble::watch("pods", lag)]).line(&pods, kind, number);
        assert_eq!(line(Lag::EveryKthLost(3), "ADDED", 1), Line::Pass);
        assert_eq!(line(Lag::EveryKthLost(3), "ADDED", 2), Line::Lost);
        assert_eq!(line(Lag::EveryKthLost(3), "BOOKMARK", 2), Line::Pass);
        assert_eq!(line(Lag::DeletionsLost, "DELETED", 0), Line::Lost);
        assert_eq!(line(Lag::DeletionsLost, "MODIFIED", 0), Line::Pass);
        assert_eq!(line(Lag::Stalled, "BOOKMARK", 0), Line::Held);
        assert_eq!(line(Lag::Gone, "ADDED", 0), Line::Gone);
        let second = Duration::from_secs(1);
        assert_eq!(line(Lag::Late(second), "ADDED", 0), Line::After(second));
        let plan = Plan::troubles([Trouble::watch("nodes", Lag::Stalled)]);
        assert_eq!(plan.line(&pods, "ADDED", 0), Line::Pass);
    }

    #[test]
    fn lists_are_old_where_the_plan_says_so() {
        let old = |stale| Plan::troubles([Trouble::old("pods", stale, Duration::from_secs(5))]);
        let of_one_namespace = call(Verb::List, "pods", "");
        let of_all = Call {
            namespace: String::new(),
            ..of_one_namespace.clone()
        };
        assert!(old(Stale::Every).is_stale(&of_one_namespace) && old(Stale::Every).is_stale(&of_all));
        assert!(!old(Stale::Watched).is_stale(&of_one_namespace) && old(Stale::Watched).is_stale(&of_all));
        assert!(!old(Stale::Every).is_stale(&call(Verb::List, "services", "")));
        assert!(!old(Stale::Every).is_stale(&call(Verb::Get, "pods", "")));
    }
}
