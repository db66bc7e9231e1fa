//! `moescope demo`.

use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::Args;
use moescope_model::{Adapter, DType, DeviceChoice, MoeImpl, device::choose};
use moescope_record::Keep;
use moescope_report::{ReportOptions, sanitize};

use super::{
    report::{top_findings, write},
    run::Job,
};
use crate::{
    args::{Compute, Generation},
    model::ModelArgs,
    ui,
};

/// Record the bundled model on this machine, compare two runs and write a report.
///
/// With a GPU the runs are the same model on the GPU and on the CPU. Without one both are on the CPU, and
/// the models are two checkpoints of the same training.
#[derive(Args)]
pub(crate) struct Demo {
    /// Directory of the report.
    #[arg(short, long, default_value = "reports/demo", value_name = "DIR")]
    output: PathBuf,
    /// Directory of the two runs.
    #[arg(long, default_value = "runs/demo", value_name = "DIR")]
    runs: PathBuf,
    /// Use only the first N prompts of each domain.
    #[arg(long, value_name = "N")]
    per_domain: Option<usize>,
}

/// One of the two runs.
struct Plan {
    name: &'static str,
    model: &'static str,
    adapter: Adapter,
}

impl Demo {
    pub(crate) fn execute(self) -> anyhow::Result<()> {
        let datasets = datasets()?;
        let (plans, why) = plan()?;
        ui::note(why);
        let compute = Compute {
            device: DeviceChoice::Auto,
            dtype: DType::F32,
            moe_impl: MoeImpl::Selected,
            memory_limit: None,
        };
        let generation =
            Generation { max_tokens: 32, temperature: 0.0, top_k: 0, top_p: 1.0, seed: 0 };
        let mut runs = Vec::new();
        for plan in &plans {
            let output = self.runs.join(plan.name);
            let job = Job {
                model: &ModelArgs::on_disk(&datasets.join(plan.model)),
                name: plan.name,
                adapter: &plan.adapter,
                compute: &compute,
                generation: &generation,
                prompts: &datasets.join("prompts"),
                per_domain: self.per_domain,
                keep: Keep::default(),
                profile: false,
                injected: None,
                output: &output,
                force: true,
            };
            let (summary, _) = job.record()?;
            let rate = |rate: Option<f64>| rate.map_or("-".into(), |r| format!("{r:.0}"));
            ui::note(format!(
                "{}: {} tokens; prefill {} tokens/s, decode {} tokens/s",
                plan.name,
                ui::count(summary.prefill_tokens + summary.decode_tokens),
                rate(summary.prefill_rate()),
                rate(summary.decode_rate()),
            ));
            runs.push(output);
        }
        let options = ReportOptions {
            title: Some("moescope demo".into()),
            command: ui::command_line(),
            out_dir: self.output,
            force: false,
            ..ReportOptions::default()
        };
        let (paths, findings) = write(&runs, &options)?;
        let html = paths.html.canonicalize().unwrap_or(paths.html);
        ui::print(&format!(
            "{}\nreport: {}\n",
            top_findings(&findings).trim_end(),
            sanitize(&html.display().to_string()),
        ))
    }
}

/// Which two runs teach something on this machine, and why.
fn plan() -> anyhow::Result<(Vec<Plan>, String)> {
    let (best, _) = choose(DeviceChoice::Auto)?;
    let (cpu, _) = choose(DeviceChoice::Flex)?;
    if best.backend == cpu.backend {
        let plan = |name, model| Plan { name, model, adapter: cpu.clone() };
        return Ok((
            vec![
                plan("step-400", "tiny-gemma4-moe-early"),
                plan("step-2200", "tiny-gemma4-moe"),
            ],
            "no hardware GPU: both runs on the CPU (flex), with the bundled model after 400 and after \
             2,200 training steps, to show how routing changes while a model learns"
                .into(),
        ));
    }
    let why = format!(
        "the bundled model on the CPU (flex) and on {}, to show what the GPU gains and that both route \
         alike",
        best.name
    );
    let plan = |name, adapter| Plan { name, model: "tiny-gemma4-moe", adapter };
    Ok((vec![plan("cpu", cpu), plan("gpu", best)], why))
}

/// The project's `datasets/`: below the working directory, beside the binary's checkout, or where the
/// binary was built.
pub(crate) fn datasets() -> anyhow::Result<PathBuf> {
    let exe = std::env::current_exe().ok();
    let above_exe = exe.iter().flat_map(|exe| exe.ancestors().skip(1));
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let roots = [Path::new("."), &built];
    let found = roots
        .into_iter()
        .chain(above_exe)
        .map(|root| root.join("datasets"))
        .find(|datasets| datasets.join("tiny-gemma4-moe/config.json").is_file());
    match found {
        Some(datasets) => Ok(datasets),
        None => bail!(
            "datasets/tiny-gemma4-moe not found below the working directory or the binary; run `moescope \
             demo` inside a checkout of moescope"
        ),
    }
}
