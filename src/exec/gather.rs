//! The elements of a check that are not simply all, one after the other: a part of a tensor, those that a mask selects.
//! Goes through them in blocks: the output's bytes, what is expected of them, and where they lie in the tensor.

use super::collect::{RoundInputs, golden};
use super::work::Work;
use crate::expr::{BLOCK, Block, Program, Registers, Scratch};
use crate::job::{Check, Tensor, Want};

/// Room for one block.
pub(super) struct Gather {
    floats: Vec<f64>,
    ints: Vec<i128>,
    got: Vec<u8>,
    places: Vec<u64>,
    /// Indices into the block that the mask selects.
    selected: Vec<usize>,
}

impl Default for Gather {
    fn default() -> Gather {
        Gather {
            floats: Vec::with_capacity(BLOCK),
            ints: Vec::with_capacity(BLOCK),
            got: Vec::with_capacity(8 * BLOCK),
            places: Vec::with_capacity(BLOCK),
            selected: Vec::with_capacity(BLOCK),
        }
    }
}

/// A check in a round, its programs prepared.
pub(super) struct Source<'a> {
    pub check: &'a Check,
    pub tensor: &'a Tensor,
    /// All of the output.
    pub got: &'a [u8],
    /// `None` where nothing is expected but that it was written.
    pub want: Option<&'a Want>,
    /// Of an expectation that is an expression.
    pub scratch: Option<&'a Scratch>,
    pub work: &'a Work,
    pub index: usize,
    pub inputs: &'a RoundInputs<'a>,
}

/// What a function is told of a block: the output's elements, what is expected, where each lies in the tensor.
pub(super) type Each<'e> = &'e mut dyn FnMut(&[u8], Option<Block<'_>>, &[u64]);

impl Source<'_> {
    /// Elements before the mask.
    pub fn elements(&self) -> u64 {
        self.check.elements(self.tensor)
    }

    /// Goes through elements `from..to` of the part and returns how many were selected.
    ///
    /// *Errors*: a value of the expectation or the mask that this round cannot have.
    pub fn blocks(&self, from: u64, to: u64, room: &mut Gather, registers: Option<&mut Registers>, each: Each<'_>) -> Result<u64, String> {
        let mut registers = registers;
        let mut selected = 0;
        let mut at = from;
        while at < to {
            let end = (at + BLOCK as u64).min(to);
            selected += self.block(at, end, room, registers.as_deref_mut(), each)?;
            at = end;
        }
        Ok(selected)
    }

    fn block(&self, from: u64, to: u64, room: &mut Gather, registers: Option<&mut Registers>, each: Each<'_>) -> Result<u64, String> {
        let Gather { floats, ints, got, places, selected } = room;
        floats.clear();
        ints.clear();
        got.clear();
        places.clear();
        selected.clear();
        let len = (to - from) as usize;
        match &self.check.part {
            Some(part) => part.runs(from, to).for_each(|(start, len)| places.extend(start..start + len)),
            None => places.extend(from..to),
        }
        match (&self.check.mask, &self.work.masks[self.index]) {
            (Some(mask), Some(evaluator)) => {
                let mut registers = evaluator.registers();
                self.evaluate(mask, evaluator.scratch(), &mut registers, from, to, &mut |at, block| {
                    selected.extend((0..block.len()).filter(|&i| block.number(i).to_integer() == Some(1)).map(|i| at + i));
                })?;
            }
            _ => selected.extend(0..len),
        }
        if selected.is_empty() {
            return Ok(0);
        }
        let (dtype, size) = (self.tensor.dtype, self.tensor.dtype.size());
        match self.want {
            None => {}
            Some(Want::Expr(program)) => {
                let (Some(scratch), Some(registers)) = (self.scratch, registers) else {
                    return Err("the program has no scratch".into());
                };
                self.evaluate(program, scratch, registers, from, to, &mut |_, block| match block {
                    Block::Float(values) => floats.extend_from_slice(values),
                    Block::Int(values) => ints.extend_from_slice(values),
                })?;
            }
            Some(other) => {
                let bytes = golden(other, self.inputs.slot.round)?;
                let of_tensor = bytes.len() == self.got.len();
                for (i, &place) in (from..to).zip(places.iter()) {
                    let number = dtype.decode(dtype.load(bytes, if of_tensor { place } else { i } as usize));
                    if dtype.is_float() { floats.push(number.to_f64()) } else { ints.push(number.to_integer().unwrap_or(0)) }
                }
            }
        }
        // What is not selected is closed up: indices only grow.
        if selected.len() < len {
            for (to, &from) in selected.iter().enumerate() {
                places[to] = places[from];
                // The expectation is in one of the two.
                if !floats.is_empty() {
                    floats[to] = floats[from];
                }
                if !ints.is_empty() {
                    ints[to] = ints[from];
                }
            }
            places.truncate(selected.len());
            floats.truncate(selected.len());
            ints.truncate(selected.len());
        }
        for &place in places.iter() {
            got.extend_from_slice(&self.got[place as usize * size..][..size]);
        }
        let want = match (self.want, floats.is_empty()) {
            (None, _) => None,
            (Some(_), false) => Some(Block::Float(floats)),
            (Some(_), true) => Some(Block::Int(ints)),
        };
        each(got, want, places);
        Ok(selected.len() as u64)
    }

    /// Elements `from..to` of the part of a program that has the part's shape, or the tensor's; `each` also gets the
    /// index within them of a piece's first element.
    fn evaluate(
        &self,
        program: &Program,
        scratch: &Scratch,
        registers: &mut Registers,
        from: u64,
        to: u64,
        each: &mut dyn FnMut(usize, Block<'_>),
    ) -> Result<(), String> {
        let round = self.inputs.slot.round;
        let mut piece = |at: usize, start: u64, len: u64| {
            let block = program.block(scratch, registers, self.inputs, round, start, len as usize).map_err(|e| e.message)?;
            each(at, block);
            Ok(())
        };
        match &self.check.part {
            Some(part) if program.shape() == &self.tensor.shape => {
                let mut at = 0;
                part.runs(from, to).try_for_each(|(start, len)| {
                    at += len as usize;
                    piece(at - len as usize, start, len)
                })
            }
            _ => piece(0, from, to - from),
        }
    }
}
