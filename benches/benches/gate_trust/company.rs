//! Another process that computes for random stretches, on every core of the machine.

use std::{
    hint::spin_loop,
    io::Read,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use moescope_analysis::rng::Rng;

/// First argument of that process, its seed the second.
pub(crate) const FLAG: &str = "--company";

/// Ends with its owner.
pub(crate) struct Company(Child);

impl Company {
    pub(crate) fn start(seed: u64) -> Self {
        let program = std::env::current_exe().expect("a program that runs has a path");
        let mut command = Command::new(program);
        command.args([FLAG, &seed.to_string()]).stdin(Stdio::piped());
        Self(command.spawn().expect("this program can be started again"))
    }
}

impl Drop for Company {
    fn drop(&mut self) {
        // It may have ended; what counts is that it is gone.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Every core works for 20 to 500 ms and rests for as long, each at its own times, until nobody holds the input
/// of the process any more.
pub(crate) fn work(seed: u64) {
    thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    // Of the machine, whatever RAYON_NUM_THREADS leaves to what is measured.
    let cores = thread::available_parallelism().map_or(1, usize::from) as u64;
    for core in 1..cores {
        thread::spawn(move || work_on_one(seed + 1_000_003 * core));
    }
    work_on_one(seed);
}

fn work_on_one(seed: u64) -> ! {
    let mut rng = Rng::new(seed);
    let mut stretch = || Duration::from_micros(20_000 + rng.below(480_000) as u64);
    loop {
        let (work, rest) = (stretch(), stretch());
        let start = Instant::now();
        while start.elapsed() < work {
            spin_loop();
        }
        thread::sleep(rest);
    }
}
