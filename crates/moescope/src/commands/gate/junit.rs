//! The verdict as JUnit XML: one test case per check.

use moescope_analysis::gate::{Outcome, Verdict};
use moescope_report::sanitize;
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::github::message;

pub(super) fn render(verdict: &Verdict) -> anyhow::Result<String> {
    let mut suite = TestSuite::new("gate");
    suite.add_property(("base", verdict.base.as_str()));
    suite.add_property(("new", verdict.new.as_str()));
    for note in &verdict.notes {
        suite.add_property(("note", note.as_str()));
    }
    // What people see of a suite that passed.
    if !verdict.notes.is_empty() {
        suite.set_system_out(verdict.notes.join("\n"));
    }
    for check in &verdict.checks {
        let status = match check.outcome {
            Outcome::Regressed => {
                let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
                status.set_message(message(check)).set_type("regression");
                status
            }
            Outcome::Undecided => {
                let mut status = TestCaseStatus::skipped();
                status.set_message(message(check));
                status
            }
            Outcome::Suspected | Outcome::Improved | Outcome::Passed => TestCaseStatus::success(),
        };
        let mut case = TestCase::new(check.metric, status);
        case.set_classname(check.row.as_str());
        case.set_system_out(message(check));
        suite.add_test_case(case);
    }
    document(suite)
}

/// Nothing was compared: one test case that is an error.
pub(super) fn error(said: &str) -> anyhow::Result<String> {
    let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
    status.set_message(sanitize(said)).set_type("error");
    let mut suite = TestSuite::new("gate");
    suite.add_test_case(TestCase::new("comparison", status));
    document(suite)
}

fn document(suite: TestSuite) -> anyhow::Result<String> {
    let mut report = Report::new("moescope");
    report.add_test_suite(suite);
    Ok(report.to_string()?)
}
