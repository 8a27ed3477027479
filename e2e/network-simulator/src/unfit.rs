//! What of a scenario one of the drivers cannot do: refused before the run instead of being left out in silence.

use crate::{
    faults::Target,
    network::node_ids,
    scenario::{
        Scenario, Step,
        verb::{Arguments, Verb},
    },
};

/// What can be done to a node where it is simulated.
const NODE_VERBS: [Verb; 6] = [
    Verb::Stop,
    Verb::Start,
    Verb::Restart,
    Verb::Stall,
    Verb::Drop,
    Verb::Weight,
];

/// One line per step that needs sockets, with its path.
pub fn in_virtual_time(scenario: &Scenario) -> Vec<String> {
    let ids = node_ids(scenario);
    problems(scenario, |step| {
        let Step { verb, arguments, .. } = step;
        match (Target::parse(&arguments.target), verb) {
            (_, Verb::Lie) => {
                Some("lie changes fields of JSON, and in virtual time there is none: use serve".to_owned())
            }
            (Some(Target::Node(_)), verb) if !NODE_VERBS.contains(verb) => {
                Some(format!("{verb} does not work on a node"))
            }
            (Some(Target::Node(id)), _) if !ids.contains(&id) => Some(format!("there is no node {id}")),
            (Some(Target::Ports(_)), Verb::Slow) => {
                Some("slow counts bytes, and in virtual time there are none: use serve".to_owned())
            }
            (_, Verb::Answer) if is_good(arguments) => {
                Some("answer below 400 has no meaning without a body to read: use serve, or 400 and above".to_owned())
            }
            _ => None,
        }
    })
}

/// One line per step that needs machines, with its path.
pub fn in_real_time(scenario: &Scenario) -> Vec<String> {
    problems(scenario, |step| {
        let target = Target::parse(&step.arguments.target);
        matches!(target, Some(Target::Node(_))).then(|| {
            "ML nodes are programs of their own in real time: break them where they run, or use run".to_owned()
        })
    })
}

fn problems(scenario: &Scenario, problem: impl Fn(&Step) -> Option<String>) -> Vec<String> {
    let steps = scenario.steps.iter().enumerate();
    steps
        .filter_map(|(index, step)| Some(format!("steps[{index}]: {}", problem(step)?)))
        .collect()
}

fn is_good(arguments: &Arguments) -> bool {
    arguments.status.is_some_and(|status| status < 400)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{scenario, testing};

    fn places(lines: &[String]) -> Vec<&str> {
        lines.iter().filter_map(|line| line.split(':').next()).collect()
    }

    #[test]
    fn what_a_driver_cannot_do_is_refused_with_its_place() {
        let steps = "
steps:
  - {at: P, do: stop, target: rpc/1}
  - {at: P, do: slow, target: rpc/1, bytesPerSecond: 9}
  - {at: P, do: lie, target: rest/1, field: a, value: b}
  - {at: P, do: answer, target: rest/1, status: 200}
  - {at: P, do: answer, target: dapi/ml, status: 503}
  - {at: P, do: stop, target: node/ours-0}
  - {at: P, do: stop, target: node/ours-1}
  - {at: P, do: slow, target: node/ours-0, bytesPerSecond: 9}
";
        let scenario = scenario::parse(&format!("{}{steps}", testing::SCENARIO)).expect("valid");
        let refused = in_virtual_time(&scenario);
        assert_eq!(
            places(&refused),
            ["steps[1]", "steps[2]", "steps[3]", "steps[6]", "steps[7]"]
        );
        assert_eq!(places(&in_real_time(&scenario)), ["steps[5]", "steps[6]", "steps[7]"]);
    }
}
