//! What a device reads and computes at most, measured: what utilisation is a share of.
//!
//! **Read bandwidth**: bytes of a buffer far larger than the caches over the time in which all of it is read
//! and added up; the best of several passes. As STREAM does it (McCalpin, 1995), but reading only: weights are
//! streamed and not written.
//!
//! - CPU: 256 MiB or four times the caches of the last level, at most an eighth of memory, on the threads that
//!   run the model.
//! - GPU: CubeCL's own probe (`Device::performance_stats`, `MemoryAccess::Read`): a window of 512 MiB moving
//!   over a buffer twice as large, or as much as the device gives out in one piece; a software adapter gets a
//!   window of 16 MiB, which its processor's cache may partly hold.
//!
//! **FLOP/s**: `2 T I O` over the time of one product `[T, I] x [O, I]^T` as prefill does it
//! (`moescope_model::ops::linear`), with weights in the given type and square, grown until a product takes
//! long enough to be timed; the best of several. A GPU's peak is the larger of that and CubeCL's arithmetic
//! probe (`ThroughputMode::ComputeDirect`), so a slow product does not flatter a model; a software adapter's is
//! the probe alone, since tuning a product there takes half a minute. These are
//! measured peaks of this software on this device, not the vendor's figures: the reference for MBU and MFU
//! (PaLM, arXiv 2204.02311, appendix B, with the theoretical peak in its place).

use std::{
    collections::BTreeMap,
    hint::black_box,
    path::Path,
    time::{Duration, Instant},
};

use burn::tensor::{
    DType as BurnDType, Device, MemoryAccess, Tensor, ThroughputKey, ThroughputMode, ThroughputStat,
};
use cubecl::ir::{ElemType, FloatKind};
use moescope_model::{
    DType,
    ops::{self, linear::Linear},
};
use moescope_trace::{bench::Peaks, manifest::DeviceType};
use rayon::prelude::*;

use crate::{
    bench::failure::guard,
    conditions::host_info,
    environment::{
        Roots,
        sysfs::{entries, name, number, word},
    },
    error::{RecordError, Result},
    recorder::device as failed,
};

/// Bytes read per pass on the CPU at least.
const CPU_BUFFER: usize = 256 << 20;
/// Bytes one task reads: much more than starting it costs.
const CHUNK: usize = 1 << 20;
/// Window of the read probe on a software adapter.
const SOFTWARE_WINDOW: u64 = 16 << 20;
/// Time for repeating a measurement once everything is warm.
const BUDGET: Duration = Duration::from_millis(600);
/// Repetitions at least, and at most.
const REPEAT: (usize, usize) = (3, 50);
/// A product is large enough once it takes this long.
const LONG_ENOUGH: Duration = Duration::from_millis(20);
/// Width of the smallest and the largest square product.
const WIDTHS: (usize, usize) = (256, 8192);

/// Measures the peaks of a device with weights in `dtype`: about two seconds on a CPU, a few more where shaders
/// have to be compiled and products tuned. Nothing else should use the device meanwhile. `stop` is asked between
/// repetitions; one of CubeCL's probes is not interrupted.
///
/// # Errors
///
/// Says why not if the device fails or its backend panics, or has no room or no clock for a probe; `interrupted`
/// if it was stopped.
pub fn measure(
    device: &Device,
    kind: DeviceType,
    dtype: DType,
    stop: &dyn Fn() -> bool,
) -> Result<Peaks, String> {
    guard(|| of_device(device, kind, dtype, stop)).map_err(|failure| failure.to_string())
}

fn of_device(
    device: &Device,
    kind: DeviceType,
    dtype: DType,
    stop: &dyn Fn() -> bool,
) -> Result<Peaks> {
    if ops::on_cpu(device) {
        let flops = product_flops(device, dtype, stop)?;
        let read_bytes_per_second = cpu_read(cpu_buffer(&Roots::default()), stop)?;
        return Ok(Peaks { read_bytes_per_second, flops });
    }
    let software = kind == DeviceType::Software;
    let mut read = ThroughputMode::memory(MemoryAccess::Read);
    if let (true, ThroughputMode::Memory(spec)) = (software, &mut read) {
        spec.bytes = SOFTWARE_WINDOW;
    }
    let read_bytes_per_second = probe(device, read, |value, key| value.bytes_per_s(key))?;
    go_on(stop)?;
    let arithmetic = ThroughputMode::ComputeDirect { dtype: element(dtype) };
    let arithmetic = probe(device, arithmetic, |value, _| value.ops_per_s());
    let flops = match software {
        true => arithmetic?,
        // Some devices multiply in a type they have no plain arithmetic for.
        false => product_flops(device, dtype, stop)?.max(arithmetic.unwrap_or(0.0)),
    };
    Ok(Peaks { read_bytes_per_second, flops })
}

fn element(dtype: DType) -> ElemType {
    ElemType::Float(match dtype {
        DType::F32 => FloatKind::F32,
        DType::F16 => FloatKind::F16,
        DType::Bf16 => FloatKind::BF16,
    })
}

/// One of CubeCL's probes.
fn probe(
    device: &Device,
    mode: ThroughputMode,
    rate: impl Fn(&burn::tensor::ThroughputValue, &ThroughputKey) -> f64,
) -> Result<f64> {
    let key = ThroughputKey { mode };
    let refuse = |reason: String| RecordError::Device(format!("measuring its peak: {reason}"));
    match device.performance_stats(&[key]).pop() {
        Some(ThroughputStat { value: Ok(value), .. }) => {
            let rate = rate(&value, &key);
            let usable = rate.is_finite() && rate > 0.0;
            usable.then_some(rate).ok_or_else(|| refuse("the probe took no time".into()))
        }
        Some(ThroughputStat { value: Err(error), .. }) => Err(refuse(error.to_string())),
        None => Err(refuse("there is no probe for it".into())),
    }
}

fn go_on(stop: &dyn Fn() -> bool) -> Result<()> {
    if stop() { Err(RecordError::Stopped) } else { Ok(()) }
}

/// The shortest of several repetitions.
fn best(stop: &dyn Fn() -> bool, mut once: impl FnMut() -> Result<Duration>) -> Result<Duration> {
    let start = Instant::now();
    let mut best = Duration::MAX;
    for done in 0..REPEAT.1 {
        if done >= REPEAT.0 && start.elapsed() > BUDGET {
            break;
        }
        go_on(stop)?;
        best = best.min(once()?);
    }
    Ok(best)
}

/// FLOP/s of a large product.
fn product_flops(device: &Device, dtype: DType, stop: &dyn Fn() -> bool) -> Result<f64> {
    let product = |width: usize| {
        // Not all alike and not tiny: denormal numbers would be slow, zeros might be skipped.
        let values = |step: usize| -> Vec<f32> {
            (0..width * width).map(|i| ((i * step) % 251) as f32 / 251.0 - 0.4).collect()
        };
        let square = |values: Vec<f32>, dtype: BurnDType| {
            let data = burn::tensor::TensorData::new(values, [width, width]);
            Tensor::<2>::from_data(data, (device, dtype))
        };
        let x = square(values(7), BurnDType::F32);
        let w = Linear::new(square(values(13), dtype.burn().into()));
        move || {
            device.sync().map_err(|e| failed(&e))?;
            let start = Instant::now();
            let out = w.forward(x.clone());
            // Fusion would drop a result nobody holds.
            device.sync().map_err(|e| failed(&e))?;
            let elapsed = start.elapsed();
            drop(black_box(out));
            Ok(elapsed)
        }
    };
    let mut width = WIDTHS.0;
    loop {
        go_on(stop)?;
        let once = product(width);
        // The first compiles and tunes.
        once()?;
        let elapsed = once()?;
        if elapsed < LONG_ENOUGH && width < WIDTHS.1 {
            width *= 2;
            continue;
        }
        let seconds = best(stop, once)?.as_secs_f64();
        return Ok(2.0 * (width as f64).powi(3) / seconds.max(1e-9));
    }
}

/// Bytes to read per pass: far more than the caches hold, and not much of the machine's memory.
fn cpu_buffer(roots: &Roots) -> usize {
    let cache = last_level_caches(&roots.sys.join("devices/system/cpu")).unwrap_or(0);
    let eighth = (host_info().ram_bytes / 8) as usize;
    let most = if eighth > 0 { eighth } else { CPU_BUFFER };
    CPU_BUFFER.max(4 * cache).min(most).next_multiple_of(CHUNK)
}

/// Bytes of all caches of the last level the kernel lists: a processor has one per socket, or several.
fn last_level_caches(cpus: &Path) -> Option<usize> {
    let mut caches = BTreeMap::new();
    for cpu in entries(cpus) {
        for index in entries(&cpu.join("cache")) {
            let level = number(&index.join("level"));
            let Some((level, bytes)) = level.zip(cache_size(&index)) else { continue };
            let shared = word(&index.join("shared_cpu_list"));
            let shared = shared.unwrap_or_else(|| name(&cpu).to_owned());
            caches.insert((level, shared), bytes);
        }
    }
    let last = caches.keys().map(|(level, _)| *level).max()?;
    Some(caches.iter().filter(|((level, _), _)| *level == last).map(|(_, bytes)| bytes).sum())
}

/// Bytes of a cache, which the kernel writes as `32768K`.
fn cache_size(index: &Path) -> Option<usize> {
    let text = word(&index.join("size"))?;
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let unit = match unit {
        "K" => 1 << 10,
        "M" => 1 << 20,
        _ => return None,
    };
    // More than any processor has is not a size.
    digits.parse::<usize>().ok()?.checked_mul(unit).filter(|&bytes| bytes <= 4 << 30)
}

/// Bytes per second of reading a buffer of `bytes` on all threads of the model.
fn cpu_read(bytes: usize, stop: &dyn Fn() -> bool) -> Result<f64> {
    let words = (bytes / 8).max(1);
    let mut buffer = vec![0_u64; words];
    // Written by the threads that read: every page is there, and near one of them.
    let chunk = CHUNK / 8;
    buffer.par_chunks_mut(chunk).enumerate().for_each(|(i, part)| part.fill(i as u64 | 1));
    let once = || {
        let start = Instant::now();
        let sum = black_box(&buffer).par_chunks(chunk).map(sum).reduce(|| 0, u64::wrapping_add);
        black_box(sum);
        Ok(start.elapsed())
    };
    let seconds = best(stop, once)?.as_secs_f64();
    Ok((words * 8) as f64 / seconds.max(1e-9))
}

/// Adds up in lanes of their own, which compile to vector additions.
fn sum(words: &[u64]) -> u64 {
    let mut lanes = [0_u64; 16];
    let (blocks, rest) = words.as_chunks::<16>();
    for block in blocks {
        for (lane, word) in lanes.iter_mut().zip(block) {
            *lane = lane.wrapping_add(*word);
        }
    }
    lanes.iter().chain(rest).fold(0, |sum, word| sum.wrapping_add(*word))
}

#[cfg(test)]
mod tests {
    use moescope_model::{DeviceChoice, device};

    use super::*;
    use crate::{conditions::device_info, environment::tests::Tree};

    #[test]
    fn sums() {
        let words: Vec<u64> = (0..1000).map(|i| i * i + (i << 50)).collect();
        for n in [0, 1, 15, 16, 17, 999, 1000] {
            let want = words[n..].iter().fold(0_u64, |sum, word| sum.wrapping_add(*word));
            assert_eq!(sum(&words[n..]), want);
        }
    }

    #[test]
    fn buffers_are_larger_than_caches() {
        let cpus = "sys/devices/system/cpu";
        let sized = |size: &str| {
            let cache = |cpu: u32| format!("{cpus}/cpu{cpu}/cache");
            let mut files = vec![(format!("{cpus}/online"), "0-3")];
            // Two last caches, each shared by two of four processors.
            for (cpu, shared) in [(0, "0-1"), (1, "0-1"), (2, "2-3"), (3, "2-3")] {
                files.extend([
                    (format!("{}/index0/level", cache(cpu)), "1\n"),
                    (format!("{}/index0/size", cache(cpu)), "32K\n"),
                    (format!("{}/index3/level", cache(cpu)), "3\n"),
                    (format!("{}/index3/size", cache(cpu)), size),
                    (format!("{}/index3/shared_cpu_list", cache(cpu)), shared),
                    (format!("{}/uevent", cache(cpu)), ""),
                ]);
            }
            let files: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), *text)).collect();
            let tree = Tree::new(&files);
            last_level_caches(&tree.roots.sys.join("devices/system/cpu"))
        };
        assert_eq!(sized("262144K\n"), Some(512 << 20));
        assert_eq!(sized("8M\n"), Some(16 << 20));
        for hostile in
            ["", "many", "12", "-4K", "99999999999999999999K", "18014398509481983K", "9999999M"]
        {
            // The first caches are then the last, one for each processor.
            assert_eq!(sized(hostile), Some(4 * (32 << 10)), "{hostile}");
        }
        let buffer = cpu_buffer(&Roots::default());
        assert!(buffer.is_multiple_of(CHUNK) && buffer >= CHUNK);
    }

    /// Against copying, which reads and writes as much: reading alone is about as fast to twice as fast. What
    /// else the machine does may fall into one of the three; of several attempts one goes undisturbed.
    #[test]
    fn reading_is_as_fast_as_copying() {
        let _alone = crate::one_at_a_time();
        let n = 64 << 20;
        let from = vec![1_u8; n];
        let mut to = vec![0_u8; n];
        let copy = |from: &[u8], to: &mut [u8]| {
            to.par_chunks_mut(CHUNK)
                .zip(from.par_chunks(CHUNK))
                .for_each(|(to, from)| to.copy_from_slice(from));
        };
        let mut once = || {
            let start = Instant::now();
            copy(black_box(&from), black_box(&mut to));
            Ok(start.elapsed())
        };
        let mut seen = Vec::new();
        let held = (0..5).any(|_| {
            let copied = 2.0 * n as f64 / best(&|| false, &mut once).unwrap().as_secs_f64();
            let [first, second] = [(); 2].map(|()| cpu_read(n, &|| false).unwrap());
            seen.push([copied, first, second]);
            let alike = (0.4..2.5).contains(&(first / second));
            alike && [first, second].iter().all(|read| (0.3..4.0).contains(&(read / copied)))
        });
        assert!(held, "B/s copied, read, read again: {seen:?}");
    }

    /// The peak is one: no smaller product of the same kind beats it by much, and it is not far above what a
    /// core can do. Attempts as above: a peak that is too low is so in all of them.
    #[test]
    fn products_on_the_cpu() {
        let _alone = crate::one_at_a_time();
        let device = Device::flex();
        let x = Tensor::<2>::ones([96, 700], &device);
        let w = Linear::new(Tensor::<2>::ones([900, 700], &device));
        // 2 FMA units of 16 lanes at 6 GHz are the most a core does in f32.
        let most = 64.0 * 6e9 * f64::from(host_info().cores.max(1));
        let mut seen = Vec::new();
        let held = (0..5).any(|_| {
            let start = Instant::now();
            let peaks = measure(&device, DeviceType::Cpu, DType::F32, &|| false).unwrap();
            let took = start.elapsed();
            let smaller = best(&|| false, || {
                let start = Instant::now();
                black_box(w.forward(x.clone()));
                Ok(start.elapsed())
            });
            let smaller = 2.0 * 96.0 * 700.0 * 900.0 / smaller.unwrap().as_secs_f64();
            assert!(peaks.flops < most, "{:.3e} above {most:.3e}", peaks.flops);
            seen.push((peaks.flops, smaller, took));
            peaks.flops > 0.6 * smaller && took < Duration::from_secs(20)
        });
        assert!(held, "FLOP/s, those of a smaller product, time of the probes: {seen:?}");
    }

    #[test]
    fn probes_stop_when_asked() {
        let asked = measure(&Device::flex(), DeviceType::Cpu, DType::F32, &|| true);
        assert_eq!(asked, Err("interrupted".into()));
    }

    /// A software adapter has the processor's memory and its arithmetic.
    #[test]
    fn peaks_on_wgpu() {
        let _alone = crate::one_at_a_time();
        let (adapter, _) = device::choose(DeviceChoice::Wgpu(None)).unwrap();
        let kind = device_info(&adapter).device_type;
        let peaks = measure(&adapter.open(), kind, DType::F32, &|| false).unwrap();
        assert!((1e7..1e14).contains(&peaks.read_bytes_per_second), "{peaks:?}");
        assert!((1e6..1e16).contains(&peaks.flops), "{peaks:?}");
        if kind == DeviceType::Software {
            let cpu = || {
                let flex = Device::flex();
                measure(&flex, DeviceType::Cpu, DType::F32, &|| false).unwrap().flops
            };
            let cpu = (0..3).map(|_| cpu()).fold(0.0, f64::max);
            assert!(peaks.flops < 4.0 * cpu, "{peaks:?}, the CPU {cpu:.3e} FLOP/s");
        }
    }
}
