//! The kernel half's interpreter of bytecode, as `agent_common::function` describes it, over memory
//! that a test gives: for tests of what is compiled.

use agent_common::function::{CHUNKS_MAX, Chunk, Op, SLOTS, chunk_status, compare, op};

/// What a program that is stopped holds.
pub(super) trait Machine {
    /// A register by DWARF's number.
    fn register(&self, number: u8) -> u64;
    /// The canonical stack pointer.
    fn stack_pointer(&self) -> u64;
    /// Bytes of memory; false if there are none.
    fn read(&self, address: u64, bytes: &mut [u8]) -> bool;
}

/// What a run comes to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The hit is told, with these chunks.
    Told(Vec<u8>),
    /// A condition does not hold.
    Dropped,
}

struct Run<'m> {
    machine: &'m dyn Machine,
    chunks: Vec<(Chunk, Vec<u8>)>,
    failures: u32,
}

impl Run<'_> {
    fn read(&mut self, address: u64, bytes: usize) -> Option<Vec<u8>> {
        let mut found = vec![0; bytes];
        if self.failures < 2 && address >= 4096 && self.machine.read(address, &mut found) {
            return Some(found);
        }
        self.failures += 1;
        self.mark(chunk_status::FAULT);
        None
    }

    fn mark(&mut self, status: u16) {
        if let Some((chunk, _)) = self.chunks.last_mut() {
            chunk.status |= status;
        }
    }

    fn append(&mut self, bytes: &[u8]) {
        self.chunks.last_mut().expect("a chunk is open").1.extend(bytes);
    }
}

/// Runs bytecode.
pub(super) fn run(ops: &[Op], machine: &dyn Machine) -> Outcome {
    let mut run = Run { machine, chunks: Vec::new(), failures: 0 };
    let mut slots = [0_u64; SLOTS];
    let mut acc = 0_u64;
    let mut at = 0;
    while let Some(op) = ops.get(at) {
        at += 1;
        let imm = i64::from(op.imm);
        let mut failed = false;
        match op.code {
            op::END => break,
            op::REGISTER => acc = machine.register(op.a),
            op::STACK_POINTER => acc = machine.stack_pointer(),
            op::CONSTANT => acc = imm as u64,
            op::ADD => acc = acc.wrapping_add(imm as u64),
            op::LOAD => match run.read(acc.wrapping_add(i64::from(op.imm) as u64), op.b.into()) {
                Some(bytes) => {
                    let mut number = [0; 8];
                    number[..bytes.len()].copy_from_slice(&bytes);
                    acc = u64::from_le_bytes(number);
                }
                None => failed = true,
            },
            op::SAVE => slots[usize::from(op.a)] = acc,
            op::RECALL => acc = slots[usize::from(op.a)],
            op::CHUNK => {
                let chunk = Chunk { number: op.imm as u16, ..Chunk::default() };
                run.chunks.push((chunk, Vec::new()));
            }
            op::PUT => run.append(&acc.to_le_bytes()[..usize::from(op.b)]),
            op::COPY => match run.read(acc, op.imm as usize) {
                Some(bytes) => run.append(&bytes),
                None => failed = true,
            },
            op::COPY_COUNTED => {
                let wanted = u128::from(slots[usize::from(op.a)]) * u128::from(op.b);
                let taken = wanted.min(op.imm as u128) as usize;
                match run.read(acc, taken) {
                    Some(bytes) => {
                        run.append(&bytes);
                        if wanted > taken as u128 {
                            run.mark(chunk_status::CUT);
                        }
                    }
                    None => failed = true,
                }
            }
            op::STRING => {
                let mut text = Vec::new();
                loop {
                    if text.len() == op.imm as usize {
                        let next = run.read(acc + text.len() as u64, 1);
                        if next.is_some_and(|byte| byte != [0]) {
                            run.mark(chunk_status::CUT);
                        }
                        break;
                    }
                    match run.read(acc + text.len() as u64, 1).as_deref() {
                        Some([0]) => break,
                        Some(byte) => text.extend(byte),
                        None => {
                            failed = true;
                            break;
                        }
                    }
                }
                run.append(&text);
            }
            op::SKIP_IF => {
                let signed = acc as i64;
                let holds = match op.a {
                    compare::EQ => signed == imm,
                    compare::NE => signed != imm,
                    compare::LT => acc < imm as u64,
                    compare::LE => acc <= imm as u64,
                    compare::LT_SIGNED => signed < imm,
                    compare::LE_SIGNED => signed <= imm,
                    compare::GT => acc > imm as u64,
                    compare::GE => acc >= imm as u64,
                    compare::GT_SIGNED => signed > imm,
                    compare::GE_SIGNED => signed >= imm,
                    other => panic!("no comparison {other}"),
                };
                if holds {
                    at += usize::from(op.b);
                }
            }
            op::SKIP => at += usize::from(op.b),
            op::DROP => return Outcome::Dropped,
            op::SHIFT => {
                acc = match op.a {
                    0 => acc << op.imm,
                    1 => acc >> op.imm,
                    _ => (acc as i64 >> op.imm) as u64,
                }
            }
            op::AND => acc &= imm as u64,
            op::ADD_SLOT => acc = acc.wrapping_add(slots[usize::from(op.a)]),
            other => panic!("no operation {other}"),
        }
        if failed {
            while ops.get(at).is_some_and(|op| op.code != op::CHUNK) {
                at += 1;
            }
        }
    }
    let mut out = Vec::new();
    for (chunk, bytes) in &run.chunks {
        out.extend(chunk.number.to_ne_bytes());
        out.extend(chunk.status.to_ne_bytes());
        out.extend((bytes.len() as u32).to_ne_bytes());
        out.extend(bytes);
        out.resize(out.len().next_multiple_of(8), 0);
    }
    assert!(out.len() <= CHUNKS_MAX, "{} bytes of chunks", out.len());
    Outcome::Told(out)
}
