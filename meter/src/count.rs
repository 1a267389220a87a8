//! Instruments a module so that it counts exactly the instructions that it executes.
//!
//! Before each operator at which control can leave or arrive, the number of operators since the last such place is
//! added to a global variable. This is basic-block counting as in Ball and Larus, "Optimally Profiling and Tracing
//! Programs" (1994), without their optimal placement, because an interpreter is slow anyway. The interpreter's own fuel
//! is not exact: it is charged for a whole function body when it starts, whatever part of it is executed.

use std::convert::Infallible;

use anyhow::{Result, anyhow, ensure};
use wasm_encoder::reencode::{Error, Reencode, utils};
use wasm_encoder::{
    CodeSection, ConstExpr, ExportKind, ExportSection, GlobalSection, GlobalType, Instruction, Module, ValType,
};
use wasmparser::{ExportSectionReader, FunctionBody, GlobalSectionReader, Operator, Parser, Payload};

/// The export with the count.
pub(crate) const COUNTER: &str = "penstock_meter_instructions";

/// What a counter counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CounterSubject {
    /// All functions together.
    Module,
    /// Each function separately: its export is [`COUNTER`] with the number of its body appended.
    Function,
}

/// Returns the instrumented module.
pub(crate) fn counting(module: &[u8], per: CounterSubject) -> Result<Vec<u8>> {
    let mut counted = Module::new();
    let mut counters = 1;
    for payload in Parser::new(0).parse_all(module) {
        if let (Payload::CodeSectionStart { count, .. }, CounterSubject::Function) = (payload?, per) {
            counters = count;
        }
    }
    let mut reencoder = Counting { per, counters, global: None, bodies: 0 };
    reencoder
        .parse_core_module(&mut counted, Parser::new(0), module)
        .map_err(|error| anyhow!("it cannot be made to count: {error}"))?;
    ensure!(reencoder.global.is_some(), "it cannot be made to count: it has no global variable");
    Ok(counted.finish())
}

struct Counting {
    per: CounterSubject,
    counters: u32,
    /// The index of the first counter's global variable; counters are the last globals.
    global: Option<u32>,
    /// The number of function bodies so far.
    bodies: u32,
}

impl Reencode for Counting {
    type Error = Infallible;

    fn parse_global_section(
        &mut self,
        globals: &mut GlobalSection,
        section: GlobalSectionReader<'_>,
    ) -> Result<(), Error<Infallible>> {
        utils::parse_global_section(self, globals, section)?;
        // Our modules import no globals, so the indexes start here.
        self.global = Some(globals.len());
        let kind = GlobalType { val_type: ValType::I64, mutable: true, shared: false };
        for _ in 0..self.counters {
            globals.global(kind, &ConstExpr::i64_const(0));
        }
        Ok(())
    }

    fn parse_export_section(
        &mut self,
        exports: &mut ExportSection,
        section: ExportSectionReader<'_>,
    ) -> Result<(), Error<Infallible>> {
        utils::parse_export_section(self, exports, section)?;
        for (number, global) in (0..self.counters).zip(self.global.into_iter().flat_map(|first| first..)) {
            let name = match self.per {
                CounterSubject::Module => COUNTER.to_owned(),
                CounterSubject::Function => format!("{COUNTER}{number}"),
            };
            exports.export(&name, ExportKind::Global, global);
        }
        Ok(())
    }

    fn parse_function_body(&mut self, code: &mut CodeSection, body: FunctionBody<'_>) -> Result<(), Error<Infallible>> {
        let mut function = self.new_function_with_parsed_locals(&body)?;
        let mut reader = body.get_operators_reader()?;
        let mut count = 0;
        let counter = if self.per == CounterSubject::Function { self.bodies } else { 0 };
        self.bodies += 1;
        while !reader.eof() {
            let operator = reader.read()?;
            count += cost(&operator);
            if let Some(first) = self.global.filter(|_| count > 0 && ends_a_block(&operator)) {
                let global = first + counter;
                function.instruction(&Instruction::GlobalGet(global));
                function.instruction(&Instruction::I64Const(count));
                function.instruction(&Instruction::I64Add);
                function.instruction(&Instruction::GlobalSet(global));
                count = 0;
            }
            function.instruction(&self.instruction(operator)?);
        }
        code.function(&function);
        Ok(())
    }
}

/// Whether control can leave or arrive at this operator.
fn ends_a_block(operator: &Operator<'_>) -> bool {
    matches!(
        operator,
        Operator::Loop { .. }
            | Operator::If { .. }
            | Operator::Else
            | Operator::End
            | Operator::Br { .. }
            | Operator::BrIf { .. }
            | Operator::BrTable { .. }
            | Operator::Return
            | Operator::Unreachable
    )
}

/// The count of an operator: 1, or 0 when a compiler makes no instruction of it (locals are registers, constants are
/// operands, blocks are labels).
fn cost(operator: &Operator<'_>) -> i64 {
    match operator {
        Operator::LocalGet { .. }
        | Operator::LocalSet { .. }
        | Operator::LocalTee { .. }
        | Operator::I32Const { .. }
        | Operator::I64Const { .. }
        | Operator::F32Const { .. }
        | Operator::F64Const { .. }
        | Operator::Nop
        | Operator::Drop
        | Operator::Block { .. }
        | Operator::Loop { .. }
        | Operator::Else
        | Operator::End
        | Operator::Unreachable => 0,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wasm_encoder::{BlockType, FunctionSection, TypeSection};

    /// A block that is left at once when the argument is 0, then a loop with as many rounds.
    fn module() -> Vec<u8> {
        let mut types = TypeSection::new();
        types.ty().function([ValType::I32], []);
        let mut functions = FunctionSection::new();
        functions.function(0);
        let mut globals = GlobalSection::new();
        globals.global(GlobalType { val_type: ValType::I32, mutable: true, shared: false }, &ConstExpr::i32_const(0));
        let mut exports = ExportSection::new();
        exports.export("run", ExportKind::Func, 0);
        let mut code = CodeSection::new();
        let mut body = wasm_encoder::Function::new([]);
        for instruction in [
            // Leaves the block when the argument is 0: 2 (eqz, br_if).
            Instruction::Block(BlockType::Empty),
            Instruction::LocalGet(0),
            Instruction::I32Eqz,
            Instruction::BrIf(0),
            // Skipped in that case: 2.
            Instruction::LocalGet(0),
            Instruction::GlobalSet(0),
            Instruction::GlobalGet(0),
            Instruction::Drop,
            Instruction::End,
            // Each round: 3 (sub, global.set, br_if).
            Instruction::Loop(BlockType::Empty),
            Instruction::LocalGet(0),
            Instruction::I32Const(1),
            Instruction::I32Sub,
            Instruction::LocalTee(0),
            Instruction::GlobalSet(0),
            Instruction::LocalGet(0),
            Instruction::I32Const(0),
            Instruction::I32GtS,
            Instruction::BrIf(0),
            Instruction::End,
            Instruction::End,
        ] {
            body.instruction(&instruction);
        }
        code.function(&body);
        let mut module = Module::new();
        module.section(&types).section(&functions).section(&globals).section(&exports).section(&code);
        module.finish()
    }

    fn count(argument: i32) -> i64 {
        let engine = wasmi::Engine::default();
        let module = wasmi::Module::new(&engine, counting(&module(), CounterSubject::Module).unwrap()).unwrap();
        let mut store = wasmi::Store::new(&engine, ());
        let instance = wasmi::Linker::new(&engine).instantiate_and_start(&mut store, &module).unwrap();
        instance.get_typed_func::<i32, ()>(&store, "run").unwrap().call(&mut store, argument).unwrap();
        instance.get_global(&store, COUNTER).unwrap().get(&store).i64().unwrap()
    }

    #[test]
    fn what_is_executed_counts_and_what_is_skipped_does_not() {
        // eqz, br_if; two in the block unless it is left; sub, global.set, gt_s, br_if a round.
        assert_eq!(count(0), 2 + 4);
        assert_eq!(count(1), 2 + 2 + 4);
        assert_eq!(count(10), 2 + 2 + 40);
    }
}
