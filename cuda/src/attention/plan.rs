//! A problem, prepared for the device: where each sequence lies, who reads which page, masks and slopes.

use super::params::{Blocks, Params};
use crate::{Buffer, CudaError, Device};
use tilewright_attention::dropout::DropoutMask;
use tilewright_attention::{AttentionSpec, Keys};
use tilewright_scalar::{Accum, Element, Real};

/// Key rows that one block of the pass for `dK` and `dV` owns: by multiply-adds, and by tensor cores.
pub(super) const KEY_ROWS: [usize; 2] = [32, 64];

/// Positions and their differences are 32-bit numbers on the device.
const LONGEST: usize = 1 << 30;

/// What the device has to know of an [`AttentionSpec`] besides its tensors: made once, used for any number of passes.
#[derive(Debug)]
pub struct AttentionPlan<A: Accum + crate::Plain> {
    spec: AttentionSpec,
    params: Params,
    /// Tasks of the pass for `dK` and `dV`, for each of [`KEY_ROWS`].
    tasks: [Tasks; 2],
    /// What `params` points to.
    _memory: Memory<A>,
}

/// Tables of integers, the block mask, the slopes.
type Memory<A> = (Vec<Buffer<u32>>, Option<Buffer<u8>>, Option<Buffer<A>>);

/// Where the tasks and uses of one size are on the device, and how many tasks there are.
#[derive(Clone, Copy, Debug)]
struct Tasks {
    list: u64,
    uses: u64,
    count: usize,
}

impl<A: Accum + crate::Plain> AttentionPlan<A> {
    /// Checks the problem and copies what it consists of to the device.
    ///
    /// # Errors
    /// [`CudaError::Argument`] for what [`AttentionSpec::validate`] finds, [`CudaError::Unsupported`] for more than 2³⁰
    /// keys or queries in a sequence, and what copying may meet.
    pub fn new(device: &Device, spec: &AttentionSpec) -> Result<Self, CudaError> {
        spec.validate().map_err(|error| CudaError::argument("attention problem", error, "a valid one"))?;
        let sizes = [spec.batch, spec.q_heads, spec.head_dim, spec.value_dim, spec.max_q_len(), spec.max_kv_len()];
        if sizes.iter().any(|size| *size > LONGEST) {
            return Err(CudaError::Unsupported { what: "attention with an axis longer than 2^30".into() });
        }
        let mut params = numbers::<A>(spec);
        let upload = |what, words: Vec<u32>| Buffer::from_slice(device, what, &words);
        let mut memory = vec![upload("sequences", sequences(spec))?, upload("page table", table(spec))?];
        (params.sequences, params.table) = (memory[0].address(), memory[1].address());
        let mut sizes = Vec::new();
        for rows in KEY_ROWS {
            let (tasks, uses) = key_tasks(spec, rows);
            let there = upload("key tasks", tasks.iter().flat_map(KeyTask::words).collect())?;
            let users = upload("uses of keys", uses.iter().flat_map(KeyUse::words).collect())?;
            sizes.push(Tasks { list: there.address(), uses: users.address(), count: tasks.len() });
            memory.extend([there, users]);
        }
        let blocks = spec.block_mask.as_ref().map(|mask| {
            let bytes: Vec<u8> = mask.blocks.iter().map(|set| u8::from(*set)).collect();
            Buffer::from_slice(device, "block mask", &bytes)
        });
        let blocks = blocks.transpose()?;
        if let (Some(mask), Some(bytes)) = (&spec.block_mask, &blocks) {
            let (batch, heads, rows, columns) = mask.blocks.dim();
            let [row, head] = [columns, rows * columns].map(|stride| stride as i64);
            params.blocks = Blocks {
                data: bytes.address(),
                batch: if batch == 1 { 0 } else { heads as i64 * head },
                head: if heads == 1 { 0 } else { head },
                row,
                block_q: mask.block_q.min(LONGEST) as i32,
                block_k: mask.block_k.min(LONGEST) as i32,
            };
        }
        let slopes = spec.alibi.as_ref().map(|slopes| {
            let slopes: Vec<A> = slopes.iter().map(|slope| Real::from_f64(*slope)).collect();
            Buffer::from_slice(device, "ALiBi slopes", &slopes)
        });
        let slopes = slopes.transpose()?;
        params.slopes = slopes.as_ref().map_or(0, Buffer::address);
        Ok(Self { spec: spec.clone(), params, tasks: [sizes[0], sizes[1]], _memory: (memory, blocks, slopes) })
    }

    /// The problem.
    pub fn spec(&self) -> &AttentionSpec {
        &self.spec
    }

    /// Points a parameter to the tasks of the size `KEY_ROWS[size]`; returns how many there are.
    pub(super) fn set_tasks(&self, size: usize, params: &mut Params) -> usize {
        let Tasks { list, uses, count } = self.tasks[size];
        (params.tasks, params.uses) = (list, uses);
        count
    }

    /// The kernels' parameter, without tensors.
    pub(super) fn params(&self) -> Params {
        self.params
    }
}

/// The plan for tensors of `T`.
pub type PlanOf<T> = AttentionPlan<<T as Element>::Accum>;

/// Everything of the problem that is a number.
fn numbers<A: Accum>(spec: &AttentionSpec) -> Params {
    let mask = spec.dropout.map(DropoutMask::new);
    let seed = spec.dropout.map_or(0, |dropout| dropout.seed);
    // A cap beyond the accumulator's range bends nothing.
    let bends = spec.softcap.map(|cap| Real::to_f64(<A as Real>::from_f64(cap)).is_finite());
    Params {
        scale: spec.scale,
        cap: spec.softcap.unwrap_or(0.0),
        cap_mode: bends.map_or(0, |bends| 2 - i32::from(bends)),
        keep: mask.map_or(1.0, |mask| mask.keep_factor()),
        threshold: spec.dropout.map_or(0, |dropout| (dropout.p * 4_294_967_296.0 + 0.5) as u64),
        seed: [seed as u32, (seed >> 32) as u32],
        dropout: i32::from(spec.dropout.is_some()),
        batch: spec.batch as i32,
        q_heads: spec.q_heads as i32,
        group: (spec.q_heads / spec.kv_heads) as i32,
        dim: spec.head_dim as i32,
        value_dim: spec.value_dim as i32,
        page_size: match spec.keys {
            Keys::Paged { page_size, .. } => page_size.min(LONGEST) as i32,
            _ => 0,
        },
        ..Params::default()
    }
}

/// The structure `Sequence` of every sequence, in words.
fn sequences(spec: &AttentionSpec) -> Vec<u32> {
    let mut words = Vec::with_capacity(12 * spec.batch);
    let mut pages = 0;
    for b in 0..spec.batch {
        let (q_slot, q_row) = spec.query_slot(b, 0);
        let (k_slot, k_row) = match spec.keys {
            Keys::Paged { .. } => (0, 0),
            _ => spec.key_slot(b, 0),
        };
        let offset = spec.offset(b);
        // Differences of positions lie between -2^30 and 2^30, so a farther bound bounds nothing.
        let far = LONGEST as isize;
        let least = spec.window.left.map_or(-far, |left| offset.saturating_sub_unsigned(left).clamp(-far, far));
        let right = if spec.causal { Some(0) } else { spec.window.right };
        let greatest = right.map_or(far, |right| offset.saturating_add_unsigned(right).clamp(-far, far));
        words.extend([q_row as u64, k_row as u64].into_iter().flat_map(halves));
        let small = [q_slot as isize, k_slot as isize, spec.q_len(b) as isize, spec.kv_len(b) as isize, offset];
        words.extend(small.into_iter().chain([least, greatest, pages]).map(|word| word as i32 as u32));
        pages += used_pages(spec, b).len() as isize;
    }
    words
}

fn halves(word: u64) -> [u32; 2] {
    [word as u32, (word >> 32) as u32]
}

/// The pages that sequence `b` uses, in order.
fn used_pages(spec: &AttentionSpec, b: usize) -> &[usize] {
    match &spec.keys {
        Keys::Paged { page_size, table, lengths, .. } => &table[b][..lengths[b].div_ceil(*page_size)],
        _ => &[],
    }
}

/// The pages of every sequence, one after the other.
fn table(spec: &AttentionSpec) -> Vec<u32> {
    (0..spec.batch).flat_map(|b| used_pages(spec, b)).map(|page| *page as u32).collect()
}

/// Stored key rows that one block owns in the pass for `dK` and `dV`, and which of the uses are theirs.
#[derive(Clone, Copy, Debug)]
struct KeyTask {
    slot: usize,
    row: usize,
    rows: usize,
    uses: [usize; 2],
}

impl KeyTask {
    fn words(&self) -> [u32; 6] {
        let [low, high] = halves(self.row as u64);
        [low, high, self.slot as u32, self.rows as u32, self.uses[0] as u32, self.uses[1] as u32]
    }
}

/// Keys `first ..` of sequence `b` lie on a task's rows.
#[derive(Clone, Copy, Debug)]
struct KeyUse {
    b: usize,
    first: usize,
    keys: usize,
}

impl KeyUse {
    fn words(&self) -> [u32; 4] {
        [self.b as u32, self.first as u32, self.keys as u32, 0]
    }
}

/// Tiles over everything stored, used or not: rows of one sequence, or of one page, so that whoever shares a page has
/// its gradients added by one block in a fixed order.
fn key_tasks(spec: &AttentionSpec, size: usize) -> (Vec<KeyTask>, Vec<KeyUse>) {
    let (mut tasks, mut uses) = (Vec::new(), Vec::new());
    // Rows of storage from `row` on, and the sequences' keys that lie there: (sequence, first key, end of its keys).
    let mut add = |slot: usize, row: usize, len: usize, readers: &[(usize, usize, usize)]| {
        for start in (0..len).step_by(size) {
            let (rows, first_use) = (size.min(len - start), uses.len());
            for &(b, first, end) in readers {
                let keys = (first + start + rows).min(end).saturating_sub(first + start);
                if keys > 0 {
                    uses.push(KeyUse { b, first: first + start, keys });
                }
            }
            tasks.push(KeyTask { slot, row: row + start, rows, uses: [first_use, uses.len()] });
        }
    };
    match &spec.keys {
        Keys::Padded { len, .. } => (0..spec.batch).for_each(|b| add(b, 0, *len, &[(b, 0, spec.kv_len(b))])),
        Keys::Packed { cu_seqlens } => {
            (0..spec.batch).for_each(|b| add(0, cu_seqlens[b], spec.kv_len(b), &[(b, 0, spec.kv_len(b))]));
        }
        Keys::Paged { pages, page_size, .. } => {
            let mut readers = vec![Vec::new(); *pages];
            for b in 0..spec.batch {
                for (entry, &page) in used_pages(spec, b).iter().enumerate() {
                    readers[page].push((b, entry * page_size, spec.kv_len(b)));
                }
            }
            readers.iter().enumerate().for_each(|(page, readers)| add(page, 0, *page_size, readers));
        }
    }
    (tasks, uses)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tilewright_attention::Queries;

    /// Every key of every sequence is used by exactly one task, on the row where it is stored, and every stored row
    /// belongs to exactly one task.
    #[test]
    fn tasks_cover_what_is_stored_once() {
        let table = vec![vec![2, 0, 2], vec![], vec![0, 4, 1]];
        let paged = Keys::Paged { pages: 6, page_size: 37, table, lengths: vec![80, 0, 111] };
        let padded = Keys::Padded { len: 70, lengths: Some(vec![70, 0, 33]) };
        for keys in [paged, padded, Keys::Packed { cu_seqlens: vec![0, 65, 65, 97] }] {
            let queries = Queries::Padded { len: 3 };
            let spec = AttentionSpec { queries, keys, ..AttentionSpec::dense(3, 1, 3, 3, 4) };
            let (tasks, uses) = key_tasks(&spec, 32);
            let mut found = Vec::new();
            let [slots, _, rows, _] = spec.k_shape();
            let mut owned = vec![0; slots * rows];
            for task in &tasks {
                (task.row..task.row + task.rows).for_each(|row| owned[task.slot * rows + row] += 1);
                for each in &uses[task.uses[0]..task.uses[1]] {
                    for n in 0..each.keys {
                        assert_eq!(spec.key_slot(each.b, each.first + n), (task.slot, task.row + n));
                        found.push((each.b, each.first + n));
                    }
                }
            }
            found.sort_unstable();
            let all: Vec<_> = (0..3).flat_map(|b| (0..spec.kv_len(b)).map(move |j| (b, j))).collect();
            assert_eq!(found, all);
            assert!(owned.iter().all(|times| *times == 1), "{owned:?}");
        }
    }

    #[test]
    fn far_windows_do_not_wrap() {
        let mut spec = AttentionSpec::dense(1, 1, 5, 9, 4);
        spec.window = tilewright_attention::Window { left: Some(usize::MAX), right: Some(usize::MAX) };
        let words = sequences(&spec);
        assert_eq!(words[9..11], [-(1 << 30), 1 << 30].map(|word: i32| word as u32));
    }
}
