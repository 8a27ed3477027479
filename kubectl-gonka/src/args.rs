//! Flags of `kubectl gonka`; the only reader of the environment.

use clap::{Parser, Subcommand};

/// The fleet's Sprint, its windows and plans, and its records.
#[derive(Debug, Parser)]
#[command(name = "kubectl-gonka", bin_name = "kubectl gonka", version)]
pub(crate) struct Args {
    /// Context of the kubeconfig.
    #[arg(long, global = true)]
    pub context: Option<String>,
    /// Namespace of the operator.
    #[arg(long, global = true, env = "GONKA_SYSTEM_NAMESPACE", default_value = "gonka-system")]
    pub system_namespace: String,
    /// What to show.
    #[command(subcommand)]
    pub command: Command,
}

/// What to show.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Countdown, stage, window, readiness per host and slot, live nonce rate.
    Sprint {
        /// Repeat every so many seconds until interrupted.
        #[arg(short, long, num_args = 0..=1, default_missing_value = "1")]
        watch: Option<u64>,
        /// Print the operator's view as JSON.
        #[arg(long)]
        json: bool,
    },
    /// What may be disrupted now, why not, and the windows of the days to come.
    Window {
        /// Also show what the gate answered whom, newest last.
        #[arg(long)]
        history: bool,
        /// How many days to show, 1 to 7.
        #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=7))]
        days: u32,
        /// Times in UTC instead of this machine's time zone.
        #[arg(long)]
        utc: bool,
    },
    /// What will happen to which machines and deployments, when, and why not now.
    Plan {
        /// Times in UTC instead of this machine's time zone.
        #[arg(long)]
        utc: bool,
    },
    /// Asks for a machine to work on, or gives it back; then shows its place in the plan.
    Maintain {
        /// Name of the machine.
        machine: String,
        /// Why, for the record and for colleagues.
        #[arg(long, required_unless_present = "done")]
        reason: Option<String>,
        /// How long the work takes, drain and reboot included, minutes.
        #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(i32).range(1..=10080))]
        minutes: i32,
        /// Hours in which it is best done, `HH:MM-HH:MM`: windows in them go before others for a day.
        #[arg(long, value_parser = hours)]
        preferred: Option<(String, String)>,
        /// Time zone of these hours, for example Asia/Almaty.
        #[arg(long, default_value = "UTC")]
        zone: String,
        /// The work is done, or not wanted any more.
        #[arg(long, conflicts_with_all = ["reason", "minutes", "preferred", "zone"])]
        done: bool,
        /// Times in UTC instead of this machine's time zone.
        #[arg(long)]
        utc: bool,
    },
    /// Records of exams, newest first.
    Runs {
        /// Only this GonkaHost.
        host: Option<String>,
        /// Only this namespace; default: all.
        #[arg(short, long)]
        namespace: Option<String>,
        /// At most this many.
        #[arg(long, default_value_t = 20)]
        limit: usize,
        /// Print every slot of every record.
        #[arg(long)]
        slots: bool,
    },
}

/// Both ends of `HH:MM-HH:MM`.
fn hours(text: &str) -> Result<(String, String), String> {
    let clock = |text: &str| {
        let (hour, minute) = text.split_once(':')?;
        let number = |text: &str, limit: u8| {
            let two = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
            two && text.parse::<u8>().is_ok_and(|number| number < limit)
        };
        (number(hour, 24) && number(minute, 60)).then(|| text.to_owned())
    };
    text.split_once('-')
        .and_then(|(from, until)| Some((clock(from)?, clock(until)?)))
        .filter(|(from, until)| from != until)
        .ok_or_else(|| "hours are two different times of day, for example 02:00-06:00".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_are_two_different_times_of_day() {
        assert_eq!(hours("22:30-06:00"), Ok(("22:30".to_owned(), "06:00".to_owned())));
        for wrong in [
            "02:00",
            "2:00-6:00",
            "02:00-24:00",
            "02:60-03:00",
            "02:00-02:00",
            "",
            "a-b",
            "02:00-+6:00",
        ] {
            assert!(hours(wrong).is_err(), "{wrong}");
        }
    }
}
