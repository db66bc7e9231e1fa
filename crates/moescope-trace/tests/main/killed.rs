//! A process that records is killed: what it wrote opens as a partial run.

use std::env;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use moescope_trace::{BackgroundWriter, Run, RunWriter};

use crate::common::*;

/// Set in the process that is to be killed: the run directory.
const CHILD: &str = "MOESCOPE_TRACE_TEST_CHILD";

/// The test starts itself again as the recording process and kills that.
#[test]
fn a_killed_run_opens_as_partial() {
    if let Some(dir) = env::var_os(CHILD) {
        record_for_ever(Path::new(&dir));
    }
    let (_dir, path) = scratch();
    let child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "killed::a_killed_run_opens_as_partial"])
        .env(CHILD, &path)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut child = Recording(child);
    let start = Instant::now();
    while !path.join("routing/part-00010.parquet").exists() {
        assert!(start.elapsed() < Duration::from_secs(300), "the child writes nothing");
        assert!(child.0.try_wait().unwrap().is_none(), "the child ended by itself");
        sleep(Duration::from_millis(5));
    }
    drop(child);

    let run = Run::open(&path).unwrap();
    assert!(run.is_partial());
    assert!(run.read_tokens().unwrap().rows() >= 10);
    let tables = run.read().unwrap();
    assert!(tables.tokens.rows() >= 10);
    assert_eq!(tables.routing.rows(), tables.tokens.rows() * MOE_LAYERS.len());
    assert!(run.tokens().unwrap().collect().unwrap().height() >= tables.tokens.rows());
}

/// A process that records until this is dropped, whatever the test has found by then.
struct Recording(std::process::Child);

impl Drop for Recording {
    fn drop(&mut self) {
        // It may have ended by itself; what counts is that it is gone.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn record_for_ever(dir: &Path) -> ! {
    let writer = RunWriter::create(dir, manifest(), false).unwrap();
    let writer = BackgroundWriter::spawn(writer).unwrap();
    for position in 0.. {
        writer.send_tokens(tokens(0, position, 1)).unwrap();
        writer.send_routing(routing(0, position, 1)).unwrap();
        writer.send_steps(steps(position, 1)).unwrap();
    }
    unreachable!("killed before the positions run out")
}
