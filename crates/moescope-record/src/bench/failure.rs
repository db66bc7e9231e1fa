//! Errors and panics of a pass as text for its row: a row that fails is no reason to lose the others.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
};

use burn::tensor::Tensor;
use moescope_model::MoeModel;

use crate::{error::Result, recorder::device as failed};

/// Does `work`; an error or a panic becomes text on one line.
///
/// Sound as long as what `work` changes is thrown away when it fails: a pass that dies half-way leaves its
/// cache without some layer's keys.
pub(crate) fn guard<T>(work: impl FnOnce() -> Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(one_line(&error.to_string())),
        Err(payload) => {
            Err(format!("the backend panicked: {}", one_line(message(payload.as_ref()))))
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
    use crate::RecordError;

    #[test]
    fn errors_and_panics_become_text() {
        assert_eq!(guard(|| Ok(1)), Ok(1));
        let error = guard::<()>(|| Err(RecordError::Device("no\n  memory".into()))).unwrap_err();
        assert_eq!(error, "the device failed: no memory");
        let panic = guard::<()>(|| panic!("buffer {} is too large", 7)).unwrap_err();
        assert_eq!(panic, "the backend panicked: buffer 7 is too large");
    }
}
