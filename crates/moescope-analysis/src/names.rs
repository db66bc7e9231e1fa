//! Names that tell runs apart.

use moescope_trace::Manifest;

/// Display names of runs: the model's name and, where two have the same, what differs between
/// them, such as `tiny (flex)` and `tiny (wgpu)`. Runs that differ in nothing are numbered.
pub fn distinct_names(manifests: &[&Manifest]) -> Vec<String> {
    let mut names: Vec<String> =
        manifests.iter().map(|manifest| manifest.model.name.clone()).collect();
    let traits: Vec<Vec<String>> = manifests.iter().map(|manifest| traits_of(manifest)).collect();
    let alike = |names: &[String], run: usize| -> Vec<usize> {
        (0..names.len()).filter(|&other| names[other] == names[run]).collect()
    };

    for run in 0..names.len() {
        // Compared by the model's name, not by what this loop has made of it.
        let same: Vec<usize> = (0..names.len())
            .filter(|&other| manifests[other].model.name == manifests[run].model.name)
            .collect();
        let differing: Vec<&str> = (0..traits[run].len())
            .filter(|&at| same.iter().any(|&other| traits[other][at] != traits[run][at]))
            .map(|at| traits[run][at].as_str())
            .filter(|text| !text.is_empty())
            .collect();
        if !differing.is_empty() {
            names[run] = format!("{} ({})", names[run], differing.join(", "));
        }
    }
    let before = names.clone();
    for (run, name) in names.iter_mut().enumerate() {
        let same = alike(&before, run);
        if same.len() > 1 {
            let number = same.iter().take_while(|&&other| other < run).count() + 1;
            *name = format!("{name} #{number}");
        }
    }
    names
}

/// What may differ between runs of one model, most telling first.
fn traits_of(manifest: &Manifest) -> Vec<String> {
    let (model, device, settings) = (&manifest.model, &manifest.device, &manifest.settings);
    let hash: String = model.weights_hash.chars().take(8).collect();
    vec![
        device.backend.clone(),
        device.adapter.clone(),
        device.driver_version.clone().unwrap_or_default(),
        model.dtype.clone(),
        model.quantisation.clone().unwrap_or_default(),
        if hash.is_empty() { hash } else { format!("weights {hash}") },
        settings.moe_impl.clone(),
        format!("batch {}", settings.batch),
        format!("{} tokens per prompt", settings.max_tokens),
        format!("temperature {}", settings.sampling.temperature),
        format!("seed {}", settings.seed),
    ]
}
