//! `inspect --format json`.

use moescope_model::footprint::{kv_bytes, kv_bytes_per_token, stored, weights};
use serde_json::{Value, json};

use super::facts::{Facts, Fitting, TYPES};

pub(super) fn document(facts: &Facts) -> Value {
    let spec = &facts.spec;
    let held = TYPES.map(|dtype| weights(spec, dtype));
    let own = weights(spec, facts.dtype);
    let on_disk = facts.stored.map(|format| stored(spec, format));
    // All lists are by part, in the same order.
    let part = |(index, (part, total, active)): (usize, &(moescope_model::Part, u64, u64))| {
        json!({
            "part": part.as_str(), "parameters": total, "active": active,
            "bytes": own[index].1,
            "bytes_f32": held[0][index].1,
            "bytes_bf16": held[1][index].1,
            "bytes_stored": on_disk.as_ref().map(|parts| parts[index].1),
        })
    };
    let parts: Vec<Value> = spec.by_part().iter().enumerate().map(part).collect();
    let reads = facts.contexts().into_iter().flat_map(|context| {
        TYPES.map(|dtype| {
            let bytes = facts.read(dtype, context);
            json!({
                "dtype": dtype, "context": context, "bytes": bytes.round(),
                "tokens_per_second_simulated": facts.bandwidth / bytes,
            })
        })
    });
    let fits = facts.capacity.dtypes.iter().map(|dtype| {
        let Fitting { needed, fit, too_large, .. } = facts.fitting(dtype);
        json!({
            "dtype": dtype, "needed": needed, "needed_bytes": needed.total(),
            "layers": fit.map(|fit| fit.layers), "context": fit.map(|fit| fit.context),
            "too_large": too_large,
        })
    });
    json!({
        "source": facts.source,
        "labels": facts.labels,
        "architecture": spec.architecture,
        "family": spec.family,
        "layers": spec.layers,
        "hidden": spec.hidden,
        "vocabulary": spec.vocab,
        "context": spec.context,
        "moe": spec.moe,
        "dtype": facts.dtype,
        "stored": facts.stored,
        "total_parameters": spec.total_parameters(),
        "active_parameters": spec.active_parameters(),
        "active_without_embedding": facts.active_without_embedding(),
        "head_is_embedding": spec.is_tied(),
        "bytes": spec.bytes(facts.dtype),
        "kv_cache": {
            "tokens": spec.context,
            "bytes": kv_bytes(spec, 1, spec.context),
            "bytes_per_token": kv_bytes_per_token(spec, 0),
            "bytes_per_token_beyond_windows": kv_bytes_per_token(spec, usize::MAX),
        },
        "parts": parts,
        "read_per_decoded_token": {
            "bandwidth_bytes_per_second": facts.bandwidth,
            "contexts": reads.collect::<Vec<_>>(),
        },
        "fit": {
            "device": facts.device, "capacity": facts.capacity, "demand": facts.demand(),
            "by_dtype": fits.collect::<Vec<_>>(),
        },
        "catalog": facts.entry.as_ref().map(|entry| json!({
            "title": entry.title, "hub": entry.hub,
            "published": entry.published,
            "counted_as_published": facts.whole.then(|| json!({
                "total": entry.published.total_counts.of(spec, false),
                "active": entry.published.active_counts.of(spec, true),
            })),
            "notes": entry.notes, "sources": entry.sources, "from_memory": entry.from_memory,
        })),
    })
}
