//! Real models by their shapes: what they come out at is what their makers say.

use moescope_model::{Checkpoint, catalog, describe};

/// Total and active parameters, to the digits that were published.
#[test]
fn parameter_counts_are_the_published_ones() {
    for name in catalog::names() {
        let entry = catalog::find(name).unwrap().unwrap();
        let spec = describe(&Checkpoint::from_catalog(&entry).unwrap());
        let spec = spec.unwrap_or_else(|error| panic!("{name}: {error}"));
        let counted = (spec.total_parameters(), spec.active_parameters());
        let (total, active) = entry.published.matches(&spec);
        assert!(total && active, "{name}: {counted:?}, {:?}", entry.published);
    }
}
