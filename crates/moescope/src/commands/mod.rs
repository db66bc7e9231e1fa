//! One file per command: arguments and printing only; and what several of them print.

pub(crate) mod analyze;
pub(crate) mod bench;
mod by;
pub(crate) mod compare;
mod definitions;
pub(crate) mod demo;
pub(crate) mod devices;
pub(crate) mod gate;
pub(crate) mod history;
pub(crate) mod inspect;
mod interrupt;
mod long;
pub(crate) mod report;
pub(crate) mod run;
pub(crate) mod simulate;
pub(crate) mod synthetic;
