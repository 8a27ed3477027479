//! Times and durations for people. Pure: the present and the time zone come in.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use k8s_openapi::jiff::tz::TimeZone;

/// The present, and where the reader is.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    pub now: Timestamp,
    pub zone: TimeZone,
}

impl Clock {
    /// Day and minute, for example `Fri 27 Nov 14:31`.
    pub(crate) fn day(&self, time: &Time) -> String {
        time.0
            .to_zoned(self.zone.clone())
            .strftime("%a %d %b %H:%M")
            .to_string()
    }

    /// The minute alone on the day of `than`, else [`Self::day`].
    pub(crate) fn later(&self, time: &Time, than: &Time) -> String {
        let at = time.0.to_zoned(self.zone.clone());
        if at.date() == than.0.to_zoned(self.zone.clone()).date() {
            at.strftime("%H:%M").to_string()
        } else {
            self.day(time)
        }
    }

    /// Seconds from now; negative when it is past.
    pub(crate) fn seconds_until(&self, time: &Time) -> i64 {
        time.0.as_second() - self.now.as_second()
    }
}

/// For example `2 h 12 min`, `9 min`, `40 s`: two units at most.
pub(crate) fn lasts(seconds: i64) -> String {
    let seconds = seconds.max(0);
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    let two = |big: i64, big_unit: &str, small: i64, small_unit: &str| {
        if small == 0 {
            format!("{big} {big_unit}")
        } else {
            format!("{big} {big_unit} {small} {small_unit}")
        }
    };
    if days > 0 {
        two(days, "d", hours, "h")
    } else if hours > 0 {
        two(hours, "h", minutes, "min")
    } else if minutes >= 10 {
        format!("{minutes} min")
    } else if minutes > 0 {
        two(minutes, "min", seconds % 60, "s")
    } else {
        format!("{seconds} s")
    }
}

#[cfg(test)]
pub(crate) fn at(second: i64) -> Time {
    Time(Timestamp::from_second(second).expect("a time"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_two_units_at_most() {
        let shown: Vec<String> = [0, 59, 60, 95, 610, 3_600, 7_925, 86_400, 100_000].map(lasts).into();
        let expected = [
            "0 s",
            "59 s",
            "1 min",
            "1 min 35 s",
            "10 min",
            "1 h",
            "2 h 12 min",
            "1 d",
            "1 d 3 h",
        ];
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_time_of_the_same_day_is_shown_as_a_minute() {
        let clock = Clock {
            now: Timestamp::UNIX_EPOCH,
            zone: TimeZone::UTC,
        };
        assert_eq!(clock.later(&at(3_600), &at(60)), "01:00");
        assert_eq!(clock.later(&at(90_000), &at(60)), "Fri 02 Jan 01:00");
        assert_eq!(clock.seconds_until(&at(-5)), -5);
    }
}
