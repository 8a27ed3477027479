//! Decide: what is to become of FleetSignal's certificates. Pure: dates in, one step out; the caller takes it and asks again
//! until nothing is left to do.

const DAY: i64 = 86_400;

/// A server certificate is good for so long; a third of that is left when it is renewed.
pub const SERVER_SECONDS: i64 = 30 * DAY;
/// An authority is made for so long.
pub const AUTHORITY_SECONDS: i64 = 5 * 365 * DAY;
/// The next authority is introduced when the signing one has so long left.
pub const OVERLAP_SECONDS: i64 = 365 * DAY;
/// Clients know an authority for so long before anything is signed by it: what a client may sleep through.
pub const PUBLISHED_SECONDS: i64 = 90 * DAY;
/// Certificates begin so long before they are made: clocks may differ by less.
pub const BACKDATE_SECONDS: i64 = 3600;

/// From when to when a certificate is good, Unix seconds.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Life {
    /// First second.
    pub not_before: i64,
    /// Last second.
    pub not_after: i64,
}

/// What there is.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Seen {
    /// Unix seconds.
    pub now: i64,
    /// The authority that signs; absent in a new installation.
    pub signing: Option<Life>,
    /// The one that will.
    pub next: Option<Life>,
    /// Those that signed once and are still believed.
    pub former: Vec<Life>,
    /// The server's certificate, where the signing authority vouches for it under the right name.
    pub server: Option<Life>,
}

/// One step.
#[derive(Clone, Copy, Debug, Eq, PartialEq, strum::IntoStaticStr)]
pub enum Step {
    /// Nothing to do.
    Keep,
    /// The first authority.
    Begin,
    /// A server certificate, signed by the authority that signs.
    Issue,
    /// The next authority goes to clients, and signs nothing yet.
    Introduce,
    /// The next authority signs from now on; the one before is believed on, and its key is gone.
    Switch,
    /// Former authorities whose last certificate has ended are believed no longer.
    Retire,
}

impl Life {
    /// Whether two thirds have passed, or it has not begun: it was made by a clock that ran ahead.
    pub fn is_due(&self, now: i64) -> bool {
        let due = self.not_before + (self.not_after - self.not_before) / 3 * 2;
        now >= due || now < self.not_before
    }

    /// Nothing this authority signed is good any more.
    pub fn is_spent(&self, now: i64) -> bool {
        now >= self.not_after + SERVER_SECONDS
    }
}

/// The next step.
pub fn step(seen: &Seen) -> Step {
    let now = seen.now;
    let Some(signing) = seen.signing else {
        return Step::Begin;
    };
    // One that begins later was made by a clock that ran ahead: how long clients know it cannot be told from it.
    let known = seen.next.map(|next| now - next.not_before).filter(|known| *known >= 0);
    match known {
        Some(known) if known >= BACKDATE_SECONDS + PUBLISHED_SECONDS => return Step::Switch,
        None if now >= signing.not_after - OVERLAP_SECONDS => return Step::Introduce,
        _ => {}
    }
    if seen.server.is_none_or(|server| server.is_due(now)) {
        return Step::Issue;
    }
    if seen.former.iter().any(|former| former.is_spent(now)) {
        return Step::Retire;
    }
    Step::Keep
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    const NOW: i64 = 2_000_000_000;

    fn server(age_days: i64) -> Life {
        Life {
            not_before: NOW - age_days * DAY,
            not_after: NOW + SERVER_SECONDS - age_days * DAY,
        }
    }

    fn authority(age_days: i64) -> Life {
        Life {
            not_before: NOW - age_days * DAY - BACKDATE_SECONDS,
            not_after: NOW - age_days * DAY + AUTHORITY_SECONDS,
        }
    }

    fn seen(signing: i64, next: Option<i64>, server_days: i64) -> Seen {
        Seen {
            now: NOW,
            signing: Some(authority(signing)),
            next: next.map(authority),
            former: Vec::new(),
            server: Some(server(server_days)),
        }
    }

    #[rstest]
    #[case::a_new_installation(Seen { now: NOW, ..Seen::default() }, Step::Begin)]
    #[case::no_certificate_yet(Seen { server: None, ..seen(1, None, 0) }, Step::Issue)]
    #[case::a_young_certificate(seen(100, None, 19), Step::Keep)]
    #[case::two_thirds_of_its_life(seen(100, None, 20), Step::Issue)]
    #[case::one_that_ended(seen(100, None, 40), Step::Issue)]
    #[case::one_made_by_a_clock_that_ran_ahead(seen(100, None, -1), Step::Issue)]
    #[case::an_authority_with_more_than_a_year_left(seen(4 * 365 - 1, None, 1), Step::Keep)]
    #[case::an_authority_with_a_year_left(seen(4 * 365, None, 1), Step::Introduce)]
    #[case::the_next_one_is_not_known_for_long_enough(seen(4 * 365, Some(89), 1), Step::Keep)]
    #[case::the_next_one_is_known_everywhere(seen(4 * 365, Some(90), 1), Step::Switch)]
    #[case::an_authority_that_ended_signs_on_until_clients_know_the_next(seen(6 * 365, Some(10), 20), Step::Issue)]
    #[case::a_next_one_made_by_a_clock_that_ran_ahead(seen(4 * 365, Some(-400), 1), Step::Introduce)]
    #[case::a_former_one_that_may_still_vouch(Seen { former: vec![authority(5 * 365 + 29)], ..seen(1, None, 1) }, Step::Keep)]
    #[case::a_former_one_that_is_spent(Seen { former: vec![authority(5 * 365 + 30)], ..seen(1, None, 1) }, Step::Retire)]
    fn one_step(#[case] seen: Seen, #[case] wanted: Step) {
        assert_eq!(step(&seen), wanted);
    }

    fn lives() -> impl Strategy<Value = Life> {
        (-3000..3000_i64, 1..3000_i64).prop_map(|(begins, lasts)| Life {
            not_before: NOW + begins * DAY,
            not_after: NOW + (begins + lasts) * DAY,
        })
    }

    /// What a step makes of the dates.
    fn taken(mut seen: Seen, step: Step) -> Seen {
        let now = seen.now;
        let made = |lasts| Life {
            not_before: now - BACKDATE_SECONDS,
            not_after: now + lasts,
        };
        match step {
            Step::Keep => {}
            Step::Begin => (seen.signing, seen.server) = (Some(made(AUTHORITY_SECONDS)), None),
            Step::Issue => seen.server = Some(made(SERVER_SECONDS)),
            Step::Introduce => seen.next = Some(made(AUTHORITY_SECONDS)),
            Step::Switch => {
                seen.former.extend(seen.signing);
                (seen.signing, seen.server) = (seen.next.take(), None);
            }
            Step::Retire => seen.former.retain(|former| !former.is_spent(now)),
        }
        seen
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn from_any_dates_a_few_steps_come_to_a_certificate_that_is_good_now(
            signing in proptest::option::of(lives()),
            next in proptest::option::of(lives()),
            former in proptest::collection::vec(lives(), 0..3),
            server in proptest::option::of(lives()),
        ) {
            let mut seen = Seen { now: NOW, signing, next, former, server };
            let mut steps = Vec::new();
            while step(&seen) != Step::Keep {
                steps.push(step(&seen));
                prop_assert!(steps.len() <= 5, "no rest: {steps:?}");
                seen = taken(seen, steps[steps.len() - 1]);
            }
            let server = seen.server.expect("there is a certificate");
            prop_assert!(server.not_before <= NOW && NOW < server.not_after);
        }

        #[test]
        fn whoever_slept_for_ninety_days_knows_the_authority_of_the_certificate_served_now(
            looks in proptest::collection::vec(1..60 * DAY, 1..400),
        ) {
            let mut seen = Seen { now: NOW, ..Seen::default() };
            // The authority's first second is its name here.
            let mut bundles: Vec<(i64, Vec<Life>)> = Vec::new();
            for pause in looks {
                seen.now += pause;
                while step(&seen) != Step::Keep {
                    seen = taken(seen.clone(), step(&seen));
                }
                let former = seen.former.iter().copied();
                let bundle = [seen.signing, seen.next].into_iter().flatten().chain(former).collect();
                bundles.push((seen.now, bundle));
                for (at, bundle) in &bundles {
                    prop_assert!(
                        *at < seen.now - PUBLISHED_SECONDS || seen.signing.is_some_and(|signing| bundle.contains(&signing)),
                        "a bundle of {} days ago does not know who signs", (seen.now - at) / DAY
                    );
                }
                prop_assert!(seen.former.len() <= 2, "authorities pile up: {:?}", seen.former);
            }
        }
    }
}
