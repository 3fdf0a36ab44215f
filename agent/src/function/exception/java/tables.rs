//! What the virtual machine says of itself to debuggers: the table of its fields (`gHotSpotVMStructs`) and
//! those beside it, and a few variables of which only symbols tell.

use std::collections::HashMap;

use super::super::data;
use crate::inspect::address::VirtAddr;
use crate::inspect::elf::Module;
use crate::inspect::symbols::Index;

/// The symbols of the tables. All but the second point at theirs, which is for the virtual machine's own
/// compiler: some fields are nowhere else.
const FIELDS: &str = "gHotSpotVMStructs";
const FIELDS_FOR_COMPILER: &str = "_ZN14JVMCIVMStructs21localHotSpotVMStructsE";
const CONSTANTS: [&str; 2] = ["gHotSpotVMIntConstants", "gHotSpotVMLongConstants"];
const TYPES: &str = "gHotSpotVMTypes";

/// A field (`VMStructEntry` of `vmStructs.hpp`): names of the type, the field and its type, whether it is
/// static, its offset, its address.
const FIELD_BYTES: u64 = 48;
const FIELD_NAME: u64 = 8;
const FIELD_OFFSET: u64 = 32;
const FIELD_ADDRESS: u64 = 40;

/// A constant (`VMIntConstantEntry`, `VMLongConstantEntry`): its name, its value.
const CONSTANT_BYTES: u64 = 16;
const CONSTANT_VALUE: u64 = 8;

/// A type (`VMTypeEntry`): names of it and of what it derives from, three flags, its size.
const TYPE_BYTES: u64 = 40;
const TYPE_SIZE: u64 = 32;

/// Most entries of a table.
const ENTRIES_MAX: u64 = 4096;

/// Most bytes of a section that names lie in, and of a name.
const NAMES_MAX: u64 = 64 << 20;
const NAME_MAX: usize = 128;

/// Variables that only have symbols.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Variable {
    /// Whether references to objects have four bytes.
    ShortReferences,
    /// Whether references to classes have.
    ShortClasses,
    /// Whether those lie within the first word of an object. Not in every version.
    CompactHeaders,
    /// Where the fields of Java's own classes lie: what a throwable was given to say, what a string
    /// consists of, and how that is written.
    Message,
    Items,
    Coder,
}

const VARIABLES: [(Variable, &str); 6] = [
    (Variable::ShortReferences, "UseCompressedOops"),
    (Variable::ShortClasses, "UseCompressedClassPointers"),
    (Variable::CompactHeaders, "UseCompactObjectHeaders"),
    (Variable::Message, "_ZN19java_lang_Throwable21_detailMessage_offsetE"),
    (Variable::Items, "_ZN16java_lang_String13_value_offsetE"),
    (Variable::Coder, "_ZN16java_lang_String13_coder_offsetE"),
];

/// Where the offset of a field is told, once the library is loaded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Offset(pub(super) VirtAddr);

/// The tables of a library.
pub(in super::super) struct Tables {
    fields: HashMap<(String, String), VirtAddr>,
    for_compiler: HashMap<(String, String), VirtAddr>,
    constants: HashMap<String, i32>,
    sizes: HashMap<String, i32>,
    variables: Vec<Option<VirtAddr>>,
    /// What the fields' addresses are.
    addresses: HashMap<VirtAddr, VirtAddr>,
}

impl Tables {
    /// Reads them. `None`: it is no such library.
    pub(in super::super) fn read(module: &Module, index: &Index) -> Option<Self> {
        let [ints, longs] = CONSTANTS;
        let tables = [FIELDS, FIELDS_FOR_COMPILER, ints, longs, TYPES];
        let names: Vec<_> = tables.into_iter().chain(VARIABLES.map(|(_, name)| name)).collect();
        let mut symbols = data::symbols(module, &names);
        let variables = symbols.split_off(tables.len());
        let [fields, for_compiler, ints, longs, types] = *symbols.as_slice() else { return None };
        let start = |pointer: Option<VirtAddr>| index.relocated(pointer?);
        let fields = start(fields)?;
        let reader = Reader { module, index, names: Names::at(index.relocated(fields)?, module)? };
        let mut constants = HashMap::new();
        for table in [ints, longs].into_iter().filter_map(start) {
            for (at, name) in reader.rows(table, CONSTANT_BYTES) {
                constants.extend(reader.number(at + CONSTANT_VALUE).map(|value| (name, value)));
            }
        }
        let types = start(types).map(|table| reader.rows(table, TYPE_BYTES));
        let sizes = types.into_iter().flatten();
        let sizes = sizes.filter_map(|(at, name)| Some((name, reader.number(at + TYPE_SIZE)?)));
        let sizes = sizes.collect();
        let fields = reader.fields(fields);
        let address = |at: &VirtAddr| Some((*at, index.relocated(VirtAddr(at.0 + FIELD_ADDRESS))?));
        Some(Self {
            addresses: fields.values().filter_map(address).collect(),
            fields,
            for_compiler: for_compiler.map(|at| reader.fields(at)).unwrap_or_default(),
            constants,
            sizes,
            variables,
        })
    }

    /// One that has all there may be.
    #[cfg(test)]
    pub(super) fn full() -> Self {
        let at = VirtAddr(0x1000);
        let fields = [
            ("oopDesc", "_metadata._klass"),
            ("oopDesc", "_metadata._compressed_klass"),
            ("CompressedKlassPointers", "_base"),
            ("CompressedKlassPointers", "_shift"),
            ("CompressedOops", "_base"),
            ("CompressedOops", "_shift"),
            ("Klass", "_name"),
            ("Symbol", "_length"),
            ("Symbol", "_body"),
            ("Universe", "_collectedHeap"),
            ("CollectedHeap", "_total_collections"),
            ("CollectedHeap", "_is_gc_active"),
            ("BarrierSet", "_barrier_set"),
            ("BarrierSet", "_fake_rtti"),
            ("BarrierSet::FakeRtti", "_concrete_tag"),
            ("ConstMethod", "_flags"),
            ("ConstMethod", "_code_size"),
            ("ConstMethod", "_constMethod_size"),
            ("ConstMethod", "_constants"),
            ("ConstantPool", "_pool_holder"),
            ("Method", "_constMethod"),
            ("JavaThread", "_vm_result"),
        ];
        let flags = super::handler::FLAGS;
        let flags = flags.map(|(name, bit)| (format!("ConstMethod::_{name}"), i32::from(bit)));
        let more = [
            ("BarrierSet::CardTableBarrierSet", 1),
            ("BarrierSet::G1BarrierSet", 3),
            ("markWord::klass_shift", 42),
            ("frame::interpreter_frame_last_sp_offset", -2),
        ];
        let more = more.map(|(name, value)| (name.to_owned(), value));
        Self {
            fields: fields.map(|(a, b)| ((a.to_owned(), b.to_owned()), at)).into(),
            for_compiler: HashMap::new(),
            constants: flags.into_iter().chain(more).collect(),
            sizes: [("ConstMethod".to_owned(), 48)].into(),
            variables: vec![Some(at); VARIABLES.len()],
            addresses: [(at, at)].into(),
        }
    }

    /// Where the offset of a field is told, which has one of these names.
    pub(super) fn offset(&self, class: &str, fields: &[&str]) -> Option<Offset> {
        offset(&self.fields, class, fields)
    }

    /// As [`offset`](Self::offset), of a field that may only be told to the compiler.
    pub(super) fn offset_for_compiler(&self, class: &str, fields: &[&str]) -> Option<Offset> {
        self.offset(class, fields).or_else(|| offset(&self.for_compiler, class, fields))
    }

    /// Where a static field lies, which has one of these names.
    pub(super) fn address(&self, class: &str, fields: &[&str]) -> Option<VirtAddr> {
        self.addresses.get(&entry(&self.fields, class, fields)?).copied()
    }

    /// A constant, which has one of these names.
    pub(super) fn constant(&self, names: &[&str]) -> Option<i32> {
        names.iter().find_map(|name| self.constants.get(*name)).copied()
    }

    /// How many bytes an object of a type has.
    pub(super) fn size(&self, name: &str) -> Option<i32> {
        self.sizes.get(name).copied()
    }

    /// Where a variable lies.
    pub(super) fn variable(&self, variable: Variable) -> Option<VirtAddr> {
        let place = VARIABLES.iter().position(|(known, _)| *known == variable)?;
        *self.variables.get(place)?
    }
}

fn entry(
    table: &HashMap<(String, String), VirtAddr>,
    class: &str,
    fields: &[&str],
) -> Option<VirtAddr> {
    let find = |field: &&str| table.get(&(class.to_owned(), (*field).to_owned()));
    fields.iter().find_map(find).copied()
}

fn offset(
    table: &HashMap<(String, String), VirtAddr>,
    class: &str,
    fields: &[&str],
) -> Option<Offset> {
    Some(Offset(VirtAddr(entry(table, class, fields)?.0 + FIELD_OFFSET)))
}

/// The section that the names lie in.
struct Names {
    start: u64,
    bytes: Vec<u8>,
}

impl Names {
    fn at(address: VirtAddr, module: &Module) -> Option<Self> {
        let holds =
            |start: u64, size: u64| (start..start.saturating_add(size)).contains(&address.0);
        let mut sections = module.sections().iter();
        let section = sections.find(|section| holds(section.address.0, section.size))?;
        let bytes = (section.size <= NAMES_MAX).then(|| module.section_bytes(section).ok())??;
        Some(Self { start: section.address.0, bytes })
    }

    fn name(&self, address: VirtAddr) -> Option<&str> {
        let from = usize::try_from(address.0.checked_sub(self.start)?).ok()?;
        let rest = self.bytes.get(from..)?;
        let end = rest.iter().take(NAME_MAX).position(|byte| *byte == 0)?;
        std::str::from_utf8(rest.get(..end)?).ok()
    }
}

struct Reader<'a> {
    module: &'a Module,
    index: &'a Index,
    names: Names,
}

impl Reader<'_> {
    /// Where the entries of a table are, each with the name that it begins with. The last one has none.
    fn rows(&self, table: VirtAddr, bytes: u64) -> Vec<(u64, String)> {
        let row = |number| {
            let at = table.0 + bytes * number;
            Some((at, self.names.name(self.index.relocated(VirtAddr(at))?)?.to_owned()))
        };
        (0..ENTRIES_MAX).map_while(row).collect()
    }

    fn fields(&self, table: VirtAddr) -> HashMap<(String, String), VirtAddr> {
        let field = |(at, class)| {
            let name = self.index.relocated(VirtAddr(at + FIELD_NAME))?;
            Some(((class, self.names.name(name)?.to_owned()), VirtAddr(at)))
        };
        self.rows(table, FIELD_BYTES).into_iter().filter_map(field).collect()
    }

    /// A number that is in the file.
    fn number(&self, at: u64) -> Option<i32> {
        let bytes = self.module.read(VirtAddr(at), 4).ok()?;
        Some(i32::from_le_bytes(bytes.try_into().ok()?))
    }
}
