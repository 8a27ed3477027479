//! Drift test and generator in one: `docs/delivery.md`, what each way to deliver is worth. DAPI's commits are modelled as
//! recorded; what leaves when is decided by the slot's own code.

#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "UPDATE_GENERATED turns the check into the generator, and what fails in its helpers is the test"
)]

use node_agent::slot::serve::{
    outbox::{Entry, Outbox, Outcome, Step},
    round::ending::{Ends, must_hurry},
    signal::{View, accept},
};
use proto::v1::Frame;
use std::{collections::VecDeque, fmt::Write as _, path::Path};

/// Step of the model.
const STEP_MS: i64 = 20;
/// Exams per row: DAPI's commit timer stands elsewhere in each.
const EXAMS: u64 = 100;
/// From the request to the first nonce.
const FIRST_NONCE_MS: i64 = 300;
/// Between two batches of an engine, and their artifacts.
const BATCH_MS: i64 = 100;
const BATCH: i32 = 2;
/// From a callback's start to DAPI's answer, and from a block to its frame.
const WAY_MS: i64 = 40;
/// `poc_commit_interval_seconds`, DAPI's default and the recorded one.
const COMMIT_MS: i64 = 5_000;
/// What one DAPI serves at most.
const SLOTS_PER_DAPI: usize = 512;

/// An exam of a network.
#[derive(Debug, Clone, Copy)]
struct Exam {
    blocks: i64,
    block_ms: i64,
}

const MAINNET: Exam = Exam {
    blocks: 35,
    block_ms: 5_314,
};
const TEST: Exam = Exam {
    blocks: 12,
    block_ms: 1_000,
};
const RECORDED: Exam = Exam {
    blocks: 12,
    block_ms: 1_250,
};

/// A way to deliver.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    /// At fixed intervals.
    Every(i64),
    /// Every five seconds, and at this interval in the last two blocks.
    LastBlocks(i64),
    /// Every five seconds, and at this interval while the last commit that counts may be sent.
    LastCommit(i64),
    /// As `slot serve` does.
    Own,
    /// Each artifact by itself at once: what no slot can better.
    AtOnce,
}

impl Way {
    fn name(self) -> String {
        match self {
            Self::Every(ms) => format!("every {} s", ms as f64 / 1_000.0),
            Self::LastBlocks(ms) => format!("every 5 s, {ms} ms in the last two blocks (before)"),
            Self::LastCommit(ms) => format!("every 5 s, {ms} ms while the last commit may be sent"),
            Self::Own => "every 5 s, 250 ms while the last commit may be sent (`slot serve`)".to_owned(),
            Self::AtOnce => "each artifact at once (no slot can do better)".to_owned(),
        }
    }
}

/// SplitMix64: the same exams on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self, below: i64) -> i64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) % below.unsigned_abs()) as i64
    }
}

/// What came of one exam.
#[derive(Debug, Default, Clone, Copy)]
struct Outcomes {
    possible: u64,
    accepted: u64,
    committed: u64,
    requests: usize,
    /// Most requests in a second.
    peak: usize,
}

/// The world outside the slot: blocks, and DAPI with its commit timer.
struct World {
    /// Time of each block since the exam's first.
    blocks: Vec<i64>,
    next_commit_ms: i64,
    /// Commits sent: height they will be in, and count.
    sent: Vec<(usize, u64)>,
    accepted: u64,
}

impl World {
    fn new(exam: Exam, phase_ms: i64, random: &mut Random) -> Self {
        let mut blocks = vec![0];
        for _ in 0..exam.blocks + 3 {
            let spread = exam.block_ms / 10;
            let step = exam.block_ms - spread + random.next(2 * spread + 1);
            blocks.push(blocks[blocks.len() - 1] + step);
        }
        Self {
            blocks,
            next_commit_ms: phase_ms,
            sent: Vec::new(),
            accepted: 0,
        }
    }

    fn height(&self, now_ms: i64) -> usize {
        self.blocks
            .iter()
            .take_while(|time| **time <= now_ms)
            .count()
            .saturating_sub(1)
    }

    /// The timer sends the count it has; the transaction is in the next block or the one after.
    fn commit(&mut self, now_ms: i64, random: &mut Random) {
        if now_ms >= self.next_commit_ms {
            self.next_commit_ms += COMMIT_MS;
            let height = self.height(now_ms) + 1 + random.next(2) as usize;
            self.sent.push((height, self.accepted));
        }
    }

    /// The largest count in a block that still counts; the exchange stage has no length.
    fn committed(&self, end: usize) -> u64 {
        let counts = self.sent.iter().filter(|(height, _)| *height <= end);
        counts.map(|(_, count)| *count).max().unwrap_or(0)
    }
}

fn heard(before: Option<&View>, height: i64, now_ms: i64) -> View {
    let frame = Frame {
        height,
        block_hash: height.to_string(),
        ..Frame::default()
    };
    accept(before, frame, "", now_ms).unwrap()
}

/// When what is decided to leave leaves.
fn decide(way: Way, exam: Exam, outbox: &Outbox, view: &View, now_ms: i64) -> Step {
    let ends = Ends {
        generation_end: 1_000 + exam.blocks,
        validation_start: 1_000 + exam.blocks + 5,
    };
    let hurry = must_hurry(0, Some(ends), Some(view), now_ms, exam.blocks * exam.block_ms);
    match way {
        Way::Every(interval_ms) => outbox.decide(now_ms, interval_ms),
        Way::LastBlocks(interval_ms) if view.expected_height(now_ms) >= ends.generation_end - 2 => {
            outbox.decide(now_ms, interval_ms)
        }
        Way::LastCommit(interval_ms) if hurry => outbox.decide(now_ms, interval_ms),
        Way::Own if hurry => outbox.decide_hurried(now_ms, 5_000),
        Way::LastBlocks(_) | Way::LastCommit(_) | Way::Own => outbox.decide(now_ms, 5_000),
        Way::AtOnce => outbox.decide(now_ms, 0),
    }
}

/// One exam from its first block to the end of generation.
fn sit(way: Way, exam: Exam, index: u64) -> Outcomes {
    let mut random = Random(index);
    let mut world = World::new(exam, COMMIT_MS * index as i64 / EXAMS as i64, &mut random);
    let mut view = heard(None, 960, -40 * exam.block_ms);
    for height in 961..=1_000 {
        view = heard(Some(&view), height, (height - 1_000) * exam.block_ms + WAY_MS);
    }
    let end = exam.blocks as usize;
    let mut outbox = Outbox::new(1_000_000, 0);
    let mut on_their_way: Option<(i64, usize)> = None;
    let mut outcomes = Outcomes::default();
    let mut last_second: VecDeque<i64> = VecDeque::new();
    for now in (0..world.blocks[end]).step_by(STEP_MS as usize) {
        let height = 1_000 + world.height(now - WAY_MS) as i64;
        if height > view.height {
            view = heard(Some(&view), height, now);
        }
        if now >= FIRST_NONCE_MS && now % BATCH_MS == 0 {
            outbox.push((0..BATCH).map(|nonce| Entry {
                group: 0,
                from_index: 0,
                nonce,
                vector_b64: String::new(),
            }));
            outcomes.possible += u64::from(BATCH.unsigned_abs());
        }
        if let Some((_, count)) = on_their_way.take_if(|(arrival, _)| now >= *arrival) {
            world.accepted += count as u64;
            let left = outbox.finish(Outcome::Accepted, now);
            outbox.pop(left);
        }
        if let Step::Send(count) = decide(way, exam, &outbox, &view, now) {
            assert_eq!(outbox.begin(count, now).count(), count);
            on_their_way = Some((now + WAY_MS, count));
            outcomes.requests += 1;
            last_second.push_back(now);
            last_second.retain(|sent| now - sent < 1_000);
            outcomes.peak = outcomes.peak.max(last_second.len());
        }
        world.commit(now, &mut random);
    }
    outcomes.accepted = world.accepted;
    outcomes.committed = world.committed(end);
    outcomes
}

/// A row of the table, over every position of the commit timer.
#[derive(Debug, Clone)]
struct Row {
    way: Way,
    accepted: u64,
    committed: u64,
    worst: u64,
    best: u64,
    requests: f64,
    peak: usize,
}

fn row(way: Way, exam: Exam) -> Row {
    let exams: Vec<Outcomes> = (0..EXAMS).map(|index| sit(way, exam, index)).collect();
    let possible: u64 = exams.iter().map(|exam| exam.possible).sum();
    let permille = |count: fn(&Outcomes) -> u64| exams.iter().map(count).sum::<u64>() * 1_000 / possible;
    let shares = || exams.iter().map(|exam| exam.committed * 1_000 / exam.possible);
    Row {
        way,
        accepted: permille(|exam| exam.accepted),
        committed: permille(|exam| exam.committed),
        worst: shares().min().unwrap(),
        best: shares().max().unwrap(),
        requests: exams.iter().map(|exam| exam.requests).sum::<usize>() as f64 / EXAMS as f64,
        peak: exams.iter().map(|exam| exam.peak).max().unwrap(),
    }
}

const WAYS: [Way; 9] = [
    Way::Every(5_000),
    Way::Every(1_000),
    Way::Every(500),
    Way::LastBlocks(250),
    Way::LastCommit(1_000),
    Way::LastCommit(500),
    Way::Own,
    Way::LastCommit(100),
    Way::AtOnce,
];

fn table(exam: Exam) -> (Vec<Row>, String) {
    let rows: Vec<Row> = WAYS.iter().map(|way| row(*way, exam)).collect();
    let seconds = exam.blocks as f64 * exam.block_ms as f64 / 1_000.0;
    let mut text = String::from(
        "| delivery | accepted ‰ | committed ‰ | worst … best | requests per node | per second and node, mean | peak | peak for 512 slots, 1/s |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for row in &rows {
        writeln!(
            text,
            "| {} | {} | {} | {} … {} | {:.0} | {:.2} | {} | {} |",
            row.way.name(),
            row.accepted,
            row.committed,
            row.worst,
            row.best,
            row.requests,
            row.requests / seconds,
            row.peak,
            row.peak * SLOTS_PER_DAPI,
        )
        .unwrap();
    }
    (rows, text)
}

fn of(rows: &[Row], way: Way) -> Row {
    rows.iter().find(|row| row.way == way).unwrap().clone()
}

#[test]
fn the_slots_own_way_loses_least_of_those_a_dapi_can_bear_and_the_document_says_so() {
    let (mainnet, mainnet_table) = table(MAINNET);
    let (short, short_table) = table(TEST);
    for (rows, gain) in [(&mainnet, 10), (&short, 150)] {
        let (own, fixed) = (of(rows, Way::Own), of(rows, Way::Every(5_000)));
        let (before, bound) = (of(rows, Way::LastBlocks(250)), of(rows, Way::AtOnce));
        assert!(own.committed >= fixed.committed + gain, "{own:?} {fixed:?}");
        assert!(
            own.committed >= before.committed && own.peak <= before.peak,
            "{own:?} {before:?}"
        );
        assert!(own.committed + 10 >= bound.committed, "{own:?} {bound:?}");
        let bearable = rows.iter().filter(|row| row.peak <= own.peak);
        assert!(bearable.clone().all(|row| row.committed <= own.committed), "{rows:#?}");
    }
    let text = include_str!("delivery.md")
        .replace("{mainnet}", &mainnet_table)
        .replace("{test}", &short_table)
        .replace("{recorded}", &recorded());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/delivery.md");
    if std::env::var("UPDATE_GENERATED").is_ok() {
        std::fs::write(&path, &text).unwrap();
    }
    assert!(
        std::fs::read_to_string(&path).unwrap_or_default() == text,
        "docs/delivery.md is stale: run UPDATE_GENERATED=1 cargo test -p node-agent --test delivery"
    );
}

/// Artifacts accepted and in the last commit that counted, of the real network's Sprints; interval of their callbacks.
const TAKEN: [(i64, u64, u64); 5] = [
    (5_000, 182, 156),
    (5_000, 129, 81),
    (5_000, 128, 80),
    (1_000, 104, 78),
    (1_000, 64, 48),
];

fn recorded() -> String {
    let mut text = String::from(
        "| callbacks | recorded, committed of accepted ‰ | modelled, worst … mean … best |\n|---|---|---|\n",
    );
    for interval_ms in [5_000, 1_000] {
        let exams = (0..EXAMS).map(|index| sit(Way::Every(interval_ms), RECORDED, index));
        let shares: Vec<u64> = exams.map(|exam| exam.committed * 1_000 / exam.accepted).collect();
        let (worst, best) = (*shares.iter().min().unwrap(), *shares.iter().max().unwrap());
        let of_network = TAKEN.iter().filter(|(interval, ..)| *interval == interval_ms);
        let of_network: Vec<u64> = of_network
            .map(|(_, accepted, committed)| committed * 1_000 / accepted)
            .collect();
        assert!(
            of_network.iter().all(|share| (worst..=best).contains(share)),
            "the model knows no exam like {of_network:?}: {worst} to {best}"
        );
        let told: Vec<String> = of_network.iter().map(ToString::to_string).collect();
        let mean = shares.iter().sum::<u64>() / EXAMS;
        let way = Way::Every(interval_ms).name();
        writeln!(text, "| {way} | {} | {worst} … {mean} … {best} |", told.join(", ")).unwrap();
    }
    text
}
