//! How many kernels a device is told to run.
//!
//! CubeCL calls an observer for every launch, on the thread that issues it, before the kernel is submitted
//! (`cubecl::logging::LaunchObserver`, cubecl 0.11); fused operations are one launch. Copies between host and
//! device are none. Outside of counting this costs one atomic load per launch; a pass that is counted is not
//! one to be timed.
//!
//! On the CPU (`flex`) kernels are function calls: nothing is launched, and there is no number.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use burn::tensor::Device;
use cubecl::{
    config::{TypeNameFormatLevel, type_name_format},
    logging::{LaunchObservation, LaunchObserver},
};
use moescope_model::ops;

use crate::{error::Result, recorder::device as failed};

/// Kernels launched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dispatches {
    /// In all.
    pub total: u64,
    /// By kernel, without the types it was compiled for.
    pub by_kernel: BTreeMap<String, u64>,
}

/// Counts what `work` launches, up to and with a synchronisation of the device; `None` on the CPU.
///
/// Launches of the whole process are counted, so nothing else should use a GPU meanwhile. The first times work is
/// done, autotune launches every variant it tries: count when it is warm.
///
/// # Errors
///
/// Those of `work`; [`RecordError::Device`](crate::RecordError::Device) if the device fails.
pub fn count<O>(
    device: &Device,
    work: impl FnOnce() -> Result<O>,
) -> Result<(O, Option<Dispatches>)> {
    if ops::on_cpu(device) {
        return Ok((work()?, None));
    }
    // Fusion holds operations back: those before are launched before.
    device.sync().map_err(|e| failed(&e))?;
    let launches = Arc::new(Launches::default());
    let watching = LaunchObservation::new(launches.clone());
    let out = work()?;
    device.sync().map_err(|e| failed(&e))?;
    drop(watching);
    let by_name = std::mem::take(&mut *launches.0.lock().unwrap_or_else(PoisonError::into_inner));
    let mut dispatches = Dispatches::default();
    for (name, count) in by_name {
        dispatches.total += count;
        let kernel = type_name_format(name, TypeNameFormatLevel::Short);
        *dispatches.by_kernel.entry(kernel).or_default() += count;
    }
    Ok((out, Some(dispatches)))
}

/// Launches by the kernel's own name.
#[derive(Default)]
struct Launches(Mutex<BTreeMap<&'static str, u64>>);

impl LaunchObserver for Launches {
    fn launched(&self, kernel: &'static str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(kernel).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use burn::tensor::{DeviceKind, Tensor};
    use moescope_model::{
        Checkpoint, DType, KvCache, LoadOptions, LogitsFor, MoeImpl, Unobserved, load,
    };

    use super::*;
    use crate::recorder::ids;

    #[test]
    fn nothing_is_launched_on_the_cpu() {
        let (seven, dispatches) = count(&Device::flex(), || Ok(7)).unwrap();
        assert_eq!((seven, dispatches), (7, None));
    }

    /// Known kernels, and a decode pass: the same number every time, more with more layers' work.
    #[test]
    fn launches_on_wgpu() {
        // What other tests launch would count.
        let _alone = crate::one_at_a_time();
        let device = Device::wgpu(DeviceKind::DefaultDevice);
        let x = Tensor::<2>::ones([8, 8], &device);
        let products = |n: usize| {
            let x = x.clone();
            count(&device, move || {
                // Three operations, fused into one kernel; reading ends what can be fused.
                (0..n).for_each(|_| drop((x.clone() * 2.0 + 1.0).exp().into_data()));
                Ok(())
            })
        };
        products(1).unwrap();
        let counts = [0, 1, 3].map(|n| products(n).unwrap().1.unwrap().total);
        assert_eq!(counts, [0, 1, 3]);

        let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../datasets/tiny-gemma4-moe");
        let checkpoint = Checkpoint::open(&tiny).unwrap();
        let (dtype, moe_impl) = (DType::F32, MoeImpl::Selected);
        let options = LoadOptions { device: &device, dtype, moe_impl, progress: &|_, _| {} };
        let model = load(&checkpoint, &options).unwrap().0;
        let mut cache = KvCache::new(model.spec(), 1, 16, &device).unwrap();
        // At one length of the cache: each new one may be tuned for anew.
        let mut decode = || {
            cache.clear();
            let input = ids(&[7], &device);
            let logits = model.forward(input, &mut cache, &mut Unobserved, LogitsFor::Last)?;
            drop(logits.into_data());
            Ok(())
        };
        // Until nothing is tuned any more.
        (0..12).for_each(|_| decode().unwrap());
        let settled = count(&device, &mut decode).unwrap().1.unwrap();
        let again = [(); 2].map(|()| count(&device, &mut decode).unwrap().1.unwrap());
        assert_eq!([&again[0], &again[1]], [&settled, &settled]);
        let layers = model.spec().layers as u64;
        assert!(settled.total >= 10 * layers, "{:?}", settled);
        assert_eq!(settled.by_kernel.values().sum::<u64>(), settled.total);
        // Two per MoE layer are this project's own: gate and up, then down with the sum over experts.
        let own = |name: &str| {
            settled.by_kernel.iter().filter(|(k, _)| k.contains(name)).map(|(_, n)| n).sum::<u64>()
        };
        let moe = model.spec().moe.len() as u64;
        assert_eq!((own("RowsKernel"), own("SumKernel")), (moe, moe), "{:?}", settled);
    }
}
