//! A device that executes nothing: for plans and snapshots where there is no device.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::{Caps, Device, DeviceError, Graph, Kernel, KernelSource, Mapped, Mem, Node, Place, Point, Queue, Result};

/// Takes every command and runs none of them. Memories have bytes from when they are first mapped; they start as zeros.
pub struct NullDevice {
    caps: Caps,
    memories: Vec<Memory>,
    inherited: u32,
    kernels: u32,
    graphs: u32,
    inherited_graphs: u32,
    points: u64,
}

struct Memory {
    place: Place,
    bytes: u64,
    host: Arc<OnceLock<Vec<AtomicU64>>>,
    lent: bool,
}

impl NullDevice {
    /// A device with these capabilities.
    pub fn new(caps: Caps) -> NullDevice {
        NullDevice { caps, memories: Vec::new(), inherited: 0, kernels: 0, graphs: 0, inherited_graphs: 0, points: 0 }
    }

    fn point(&mut self) -> Point {
        self.points += 1;
        Point(self.points)
    }

    fn known(&self, call: &'static str, point: Point) -> Result<()> {
        if point.0 == 0 || point.0 > self.points {
            return Err(failed(call, format!("there is no point {}", point.0)));
        }
        Ok(())
    }
}

fn failed(call: &'static str, message: String) -> DeviceError {
    DeviceError::Failed { node: None, call, message }
}

impl Device for NullDevice {
    fn caps(&self) -> &Caps {
        &self.caps
    }

    fn alloc(&mut self, place: Place, bytes: u64) -> Result<Mem> {
        if !self.caps.unified && matches!(place, Place::Shared | Place::ReadOnly) {
            return Err(DeviceError::Unsupported(format!("{place:?} memory needs a device that shares the host's memory")));
        }
        if bytes > self.caps.largest_alloc {
            return Err(DeviceError::OutOfMemory { place, bytes, available: self.caps.largest_alloc, what: String::new() });
        }
        self.memories.push(Memory { place, bytes, host: Arc::default(), lent: false });
        Ok(Mem(self.memories.len() as u32 - 1))
    }

    fn map(&mut self, mem: Mem) -> Result<Mapped> {
        let Some(memory) = self.memories.get_mut(mem.0 as usize).filter(|m| m.place != Place::Device && !m.lent) else {
            return Err(failed("map", format!("memory {} cannot be lent", mem.0)));
        };
        let words = memory.bytes.div_ceil(8).max(1);
        let host = match memory.host.get() {
            Some(host) => host,
            None => {
                let what = String::new();
                let out_of_memory = DeviceError::OutOfMemory { place: memory.place, bytes: memory.bytes, available: 0, what };
                let mut host = Vec::new();
                host.try_reserve_exact(usize::try_from(words).unwrap_or(usize::MAX)).map_err(|_| out_of_memory)?;
                host.resize_with(words as usize, || AtomicU64::new(0));
                memory.host.get_or_init(|| host)
            }
        };
        memory.lent = true;
        let ptr = std::ptr::NonNull::from(&host[0]).cast::<u8>();
        // SAFETY: the words may be written through shared references, hold at least `bytes` bytes, and live until the
        // memory is dropped, which lent memory is not; nothing else touches them.
        Ok(unsafe { Mapped::new(mem, ptr, memory.bytes as usize) })
    }

    fn unmap(&mut self, bytes: Mapped) -> Result<()> {
        let mem = bytes.mem();
        let Some(memory) = self.memories.get_mut(mem.0 as usize).filter(|m| m.lent) else {
            return Err(failed("unmap", format!("memory {} is not lent", mem.0)));
        };
        memory.lent = false;
        Ok(())
    }

    unsafe fn load(&mut self, _: &KernelSource) -> Result<Kernel> {
        self.kernels += 1;
        Ok(Kernel(self.kernels - 1))
    }

    fn record(&mut self, _: &[Node]) -> Result<Graph> {
        self.graphs += 1;
        Ok(Graph(self.graphs - 1))
    }

    fn replay(&mut self, _: Queue, _: &[Point], graph: Graph, _: &[u64]) -> Result<Point> {
        if graph.0 >= self.graphs {
            return Err(failed("replay", format!("there is no graph {}", graph.0)));
        }
        Ok(self.point())
    }

    fn submit(&mut self, _: Queue, _: &[Point], _: &[Node]) -> Result<Point> {
        Ok(self.point())
    }

    fn poll(&mut self, point: Point) -> Result<bool> {
        self.known("poll", point).map(|()| true)
    }

    fn wait(&mut self, point: Point) -> Result<()> {
        self.known("wait", point)
    }

    fn elapsed(&mut self, point: Point) -> Result<Option<Duration>> {
        self.known("elapsed", point).map(|()| None)
    }

    fn fork(&self) -> Result<Box<dyn Device>> {
        let memories: Vec<Memory> =
            self.memories.iter().map(|m| Memory { place: m.place, bytes: m.bytes, host: Arc::clone(&m.host), lent: false }).collect();
        Ok(Box::new(NullDevice {
            caps: self.caps.clone(),
            inherited: memories.len() as u32,
            memories,
            kernels: self.kernels,
            graphs: self.graphs,
            inherited_graphs: self.graphs,
            points: 0,
        }))
    }

    fn reset(&mut self) -> Result<()> {
        self.memories.truncate(self.inherited as usize);
        self.graphs = self.inherited_graphs;
        Ok(())
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.lent {
            // Whoever still holds the host bytes may use them: they stay.
            std::mem::forget(Arc::clone(&self.host));
        }
    }
}
