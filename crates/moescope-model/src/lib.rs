//! Mixture-of-Experts language models in Burn, with an observer on every routing decision.
//!
//! - [`catalog`]: real models without their weights
//! - [`source`]: what a MODEL argument names; [`hub`]: fetching it from the Hugging Face Hub
//! - [`checkpoint`]: config and weights on disk, read strictly
//! - [`families`]: the models, one file or folder each, in one registry
//! - `blocks`: the parts families are wired from; [`ops`]: the operations under them, for CPU and GPU
//! - [`cache`]: keys and values of the tokens seen
//! - [`observer`]: what a forward pass shows while it runs; [`forced`]: experts it is told to use
//! - [`model`]: the trait all of them share, and how to load one
//! - [`spec`]: what a config says about a model, without its weights
//! - [`capacity`]: what a device can hold, and whether a model fits it
//! - [`footprint`]: bytes a model takes, bytes and operations a pass needs, by arithmetic alone
//! - [`device`]: choosing and describing devices; [`device_time`]: their own clocks

mod blocks;
pub mod cache;
pub mod capacity;
pub mod catalog;
pub mod checkpoint;
pub mod config;
pub mod device;
pub mod device_time;
pub mod dtype;
pub mod error;
pub mod families;
pub mod footprint;
pub mod forced;
pub mod hub;
pub mod model;
pub mod observer;
pub mod ops;
pub mod source;
pub mod spec;

pub use cache::{CacheMark, KvCache};
pub use capacity::{Capacity, Demand};
pub use checkpoint::{Checkpoint, LayersKept, Quantisation, WeightsSummary};
pub use device::{Adapter, AdapterType, DeviceChoice};
pub use dtype::DType;
pub use error::{ModelError, Result};
pub use forced::ForcedExperts;
pub use hub::{HubError, HubId, HubOptions, HubProgress, Need};
pub use model::{LoadOptions, LogitsFor, MoeModel, check, check_ids, describe, load, load_within};
pub use observer::{Component, Observer, Routing, Unobserved};
pub use ops::experts::MoeImpl;
pub use source::{Local, Source};
pub use spec::{KvSpec, ModelSpec, MoeLayerSpec, Part, Role, TensorSpec};
