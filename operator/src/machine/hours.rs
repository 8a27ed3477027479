//! Preferred hours: which windows a wish waits for, and for how long. Pure.

use crds::gpu_node::PreferredHours;
use crds::references::Window;
use jiff::civil::Time;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};

use super::observed::{Host, Machine};
use crate::chain::window::calendar;

/// How long a wish waits for its hours.
const PATIENCE_MILLIS: i64 = 24 * 3_600_000;
/// Windows that are looked through.
const MOST_WINDOWS: usize = 64;

/// Hours on the chain's clock.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Period {
    /// First millisecond.
    pub from_ms: i64,
    /// First millisecond after it.
    pub until_ms: i64,
}

/// What a machine's preferred hours make of its wish. The order is that of the queue.
#[derive(Clone, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub enum Timing {
    /// These are its hours.
    Preferred,
    /// It has none, or they come too late, or no window falls into them.
    #[default]
    Any,
    /// It waits for them.
    Later {
        /// When they begin, Unix milliseconds.
        from_ms: i64,
        /// For people.
        message: String,
    },
}

/// When the hours are, or come next. The error is for people.
pub fn period(hours: &PreferredHours, now_ms: i64) -> Result<Period, String> {
    let zone = TimeZone::get(&hours.time_zone).map_err(|_| format!("no time zone is called {}", hours.time_zone))?;
    let clock = |text: &str| -> Result<Time, String> {
        Time::strptime("%H:%M", text).map_err(|_| format!("{text} is no time of day"))
    };
    let (from, until) = (clock(&hours.from)?, clock(&hours.until)?);
    let unreadable = |_| "the calendar ends here".to_owned();
    let today = Timestamp::from_millisecond(now_ms)
        .map_err(unreadable)?
        .to_zoned(zone.clone())
        .date();
    // Hours over midnight may have begun yesterday.
    for days in -1..=2 {
        let first = today.checked_add(days.days()).map_err(unreadable)?;
        let last = if until > from {
            first
        } else {
            first.tomorrow().map_err(unreadable)?
        };
        let at = |date: jiff::civil::Date, time| {
            let there = zone.to_zoned(date.to_datetime(time)).map_err(unreadable)?;
            Ok::<i64, String>(there.timestamp().as_millisecond())
        };
        let period = Period {
            from_ms: at(first, from)?,
            until_ms: at(last, until)?,
        };
        if period.until_ms > now_ms {
            return Ok(period);
        }
    }
    Err("the hours never come".to_owned())
}

/// What the hours of `machine` make of its wish now. `needs_millis` is how long a Green window has to be in them; absent when
/// its slots go on elsewhere meanwhile, so that any window between exams will do.
pub fn timing<'a>(
    machine: &Machine,
    hosts: impl Iterator<Item = &'a Host>,
    needs_millis: Option<i64>,
    now_ms: i64,
) -> Timing {
    let Some(gpu_node) = &machine.gpu_node else {
        return Timing::Any;
    };
    let wish = &gpu_node.wish;
    let Some(Ok(period)) = wish.preferred.as_ref().map(|hours| period(hours, now_ms)) else {
        return Timing::Any;
    };
    if period.from_ms <= now_ms {
        return Timing::Preferred;
    }
    let requested_ms = gpu_node
        .answer
        .as_ref()
        .map_or(now_ms, |answer| answer.requested_time.0.as_millisecond());
    let lapses_ms = wish.not_after_time.as_ref().map(|time| time.0.as_millisecond());
    let in_time = period.from_ms <= requested_ms.saturating_add(PATIENCE_MILLIS)
        && lapses_ms.is_none_or(|lapses| period.from_ms < lapses);
    let mut hosts = hosts;
    if !in_time || !hosts.all(|host| has_window(host, period, needs_millis, now_ms)) {
        return Timing::Any;
    }
    let hours = wish.preferred.clone().unwrap_or_default();
    Timing::Later {
        from_ms: period.from_ms,
        message: format!(
            "waits for its preferred hours, {} to {} {}; after a day any window will do",
            hours.from, hours.until, hours.time_zone
        ),
    }
}

/// Why the hours of a wish are left out of account; absent when they are not.
pub fn complaint(machine: &Machine, now_ms: i64) -> Option<String> {
    let wish = &machine.gpu_node.as_ref()?.wish;
    let error = period(wish.preferred.as_ref()?, now_ms).err()?;
    Some(format!("preferred hours are left out of account: {error}"))
}

fn has_window(host: &Host, period: Period, needs_millis: Option<i64>, now_ms: i64) -> bool {
    let facts = &host.facts;
    let windows = calendar::ahead(
        facts,
        host.state.ready_by_millis,
        period.until_ms - now_ms,
        MOST_WINDOWS,
    );
    windows.iter().any(|interval| {
        let fits = match needs_millis {
            Some(_) => interval.window == Window::Green,
            None => matches!(interval.window, Window::Green | Window::Amber),
        };
        let (Some(from), Some(until)) = (
            facts.predict(interval.from_height),
            facts.predict(interval.until_height + 1),
        ) else {
            return false;
        };
        let shared = until.time_ms.min(period.until_ms) - from.time_ms.max(period.from_ms);
        fits && shared > needs_millis.unwrap_or(0)
    })
}
