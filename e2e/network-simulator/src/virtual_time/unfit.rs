//! What of a scenario needs sockets, and is refused in virtual time instead of being left out in silence.

use crate::{
    faults::Target,
    scenario::{
        Scenario, Step,
        verb::{Arguments, Verb},
    },
};

/// One line per step that cannot be done, with its path.
pub fn problems(scenario: &Scenario) -> Vec<String> {
    let steps = scenario.steps.iter().enumerate();
    steps
        .filter_map(|(index, step)| Some(format!("steps[{index}]: {}", problem(step)?)))
        .collect()
}

fn problem(step: &Step) -> Option<String> {
    let Step { verb, arguments, .. } = step;
    let on_ports = matches!(Target::parse(&arguments.target), Some(Target::Ports(_)));
    match verb {
        Verb::Slow if on_ports => Some("slow counts bytes, and in virtual time there are none: use serve".to_owned()),
        Verb::Lie => Some("lie changes fields of JSON, and in virtual time there is none: use serve".to_owned()),
        Verb::Answer if is_good(arguments) => Some(
            "answer below 400 has no meaning without a body to read: use serve, or a status from 400 on".to_owned(),
        ),
        _ => None,
    }
}

fn is_good(arguments: &Arguments) -> bool {
    arguments.status.is_some_and(|status| status < 400)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{scenario, testing};

    #[test]
    fn what_needs_bytes_or_json_is_refused_with_its_place() {
        let steps = "
steps:
  - {at: P, do: stop, target: rpc/1}
  - {at: P, do: slow, target: rpc/1, bytesPerSecond: 9}
  - {at: P, do: lie, target: rest/1, field: a, value: b}
  - {at: P, do: answer, target: rest/1, status: 200}
  - {at: P, do: answer, target: dapi/ml, status: 503}
";
        let scenario = scenario::parse(&format!("{}{steps}", testing::SCENARIO)).expect("valid");
        let refused = problems(&scenario);
        let places: Vec<&str> = refused.iter().filter_map(|line| line.split(':').next()).collect();
        assert_eq!(places, ["steps[1]", "steps[2]", "steps[3]"]);
    }
}
