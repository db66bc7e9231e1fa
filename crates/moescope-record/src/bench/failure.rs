//! Errors and panics of a pass as text for its row: a row that fails is no reason to lose the others.

use std::{
    any::Any,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
};

use burn::tensor::Tensor;
use moescope_model::MoeModel;

use crate::{
    error::{RecordError, Result},
    recorder::device as failed,
};

/// Why something was not done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It was asked to stop.
    Stopped,
    /// An error or a panic, on one line.
    Failed(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Stopped => write!(f, "{}", RecordError::Stopped),
            Failure::Failed(reason) => f.write_str(reason),
        }
    }
}

/// Does `work`; an error or a panic becomes text.
///
/// Sound as long as what `work` changes is thrown away when it fails: a pass that dies half-way leaves its
/// cache without some layer's keys.
pub(crate) fn guard<T>(work: impl FnOnce() -> Result<T>) -> Result<T, Failure> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(RecordError::Stopped)) => Err(Failure::Stopped),
        Ok(Err(error)) => Err(Failure::Failed(one_line(&error.to_string()))),
        Err(payload) => {
            let said = one_line(message(payload.as_ref()));
            Err(Failure::Failed(format!("the backend panicked: {said}")))
        }
    }
}

/// Whether the device of a model still computes with its weights: the head of one row is read.
pub(super) fn is_alive(model: &dyn MoeModel) -> bool {
    let read = guard(|| {
        let row = Tensor::zeros([1, model.spec().hidden], model.device());
        let logits = model.head(row).try_into_data().map_err(|e| failed(&e))?;
        Ok(logits.num_elements() == model.spec().vocab)
    });
    read == Ok(true)
}

fn message(payload: &(dyn Any + Send)) -> &str {
    match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text,
        _ => "it did not say why",
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_and_panics_become_text() {
        assert_eq!(guard(|| Ok(1)), Ok(1));
        let says = |work: fn() -> Result<()>| guard(work).unwrap_err().to_string();
        let error = || Err(RecordError::Device("no\n  memory".into()));
        assert_eq!(says(error), "the device failed: no memory");
        assert_eq!(
            says(|| panic!("buffer {} is too large", 7)),
            "the backend panicked: buffer 7 is too large"
        );
        assert_eq!(guard::<()>(|| Err(RecordError::Stopped)), Err(Failure::Stopped));
    }
}
