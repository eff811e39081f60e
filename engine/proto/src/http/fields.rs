//! A head's fields as an index over the buffer that holds them: nothing is copied, and the index is reused.

use super::{Known, KnownSet};

/// A range of a buffer. Heads are at most 64 KiB ([`HeadLimits`](crate::h1::HeadLimits) guarantees it), so two bytes do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    pub start: u16,
    pub len: u16,
}

impl Span {
    pub const EMPTY: Self = Self { start: 0, len: 0 };

    /// From `start` to `end`, both of which fit in 16 bits by the limit on heads; saturates rather than wraps otherwise.
    #[inline]
    pub fn between(start: usize, end: usize) -> Self {
        let narrow = |offset: usize| u16::try_from(offset).unwrap_or(u16::MAX);
        Self { start: narrow(start), len: narrow(end).saturating_sub(narrow(start)) }
    }

    #[inline]
    pub fn end(self) -> usize {
        self.start as usize + self.len as usize
    }

    #[inline]
    pub fn is_empty(self) -> bool {
        self.len == 0
    }

    /// The bytes meant; empty if the buffer is not the one that the span was made for.
    #[inline]
    pub fn of(self, bytes: &[u8]) -> &[u8] {
        bytes.get(self.start as usize..self.end()).unwrap_or(&[])
    }
}

/// One field line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    pub name: Span,
    /// Without surrounding white space.
    pub value: Span,
    pub known: Known,
    /// Not to be forwarded.
    pub dropped: bool,
    /// No hop may keep it in a compression table (RFC 7541 §7.1.3).
    pub sensitive: bool,
}

/// The index of one head, in wire order, preallocated to its limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fields {
    list: Vec<Field>,
    limit: usize,
    present: KnownSet,
    repeated: KnownSet,
    /// Where the last field line ends: the offset of the empty line.
    end: u16,
}

impl Fields {
    /// An index for up to `limit` fields. The only allocation it ever makes.
    pub fn with_limit(limit: usize) -> Self {
        Self { list: Vec::with_capacity(limit), limit, present: KnownSet::EMPTY, repeated: KnownSet::EMPTY, end: 0 }
    }

    #[inline]
    pub fn clear(&mut self) {
        self.list.clear();
        self.present = KnownSet::EMPTY;
        self.repeated = KnownSet::EMPTY;
        self.end = 0;
    }

    /// Becomes what `other` is, in its own memory if that suffices.
    pub fn copy_from(&mut self, other: &Self) {
        self.list.clone_from(&other.list);
        let Self { limit, present, repeated, end, .. } = *other;
        (self.limit, self.present, self.repeated, self.end) = (limit, present, repeated, end);
    }

    /// Bytes of memory that it holds.
    pub(crate) fn memory(&self) -> usize {
        self.list.capacity() * size_of::<Field>()
    }

    /// False, and no change, when the index is full.
    #[inline]
    pub fn push(&mut self, name: Span, value: Span, known: Known) -> bool {
        if self.list.len() == self.limit {
            return false;
        }
        if known != Known::Other {
            if self.present.contains(known) {
                self.repeated.insert(known);
            }
            self.present.insert(known);
        }
        self.list.push(Field { name, value, known, dropped: false, sensitive: false });
        true
    }

    #[inline]
    pub fn len(&self) -> usize {
        self.list.len()
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    #[inline]
    pub fn iter(&self) -> std::slice::Iter<'_, Field> {
        self.list.iter()
    }

    /// Names that occur, whether dropped or not.
    #[inline]
    pub fn present(&self) -> KnownSet {
        self.present
    }

    #[inline]
    pub fn has(&self, known: Known) -> bool {
        self.present.contains(known)
    }

    /// Whether the name occurs more than once.
    #[inline]
    pub fn is_repeated(&self, known: Known) -> bool {
        self.repeated.contains(known)
    }

    /// The first field of that name, whether dropped or not.
    #[inline]
    pub fn get(&self, known: Known) -> Option<&Field> {
        self.all(known).next()
    }

    /// Its value, as text of the buffer.
    #[inline]
    pub fn value<'a>(&self, known: Known, bytes: &'a [u8]) -> Option<&'a [u8]> {
        self.get(known).map(|field| field.value.of(bytes))
    }

    /// All fields of that name, in order. Costs nothing when there is none.
    #[inline]
    pub fn all(&self, known: Known) -> impl Iterator<Item = &Field> {
        let list: &[Field] = if self.has(known) { &self.list } else { &[] };
        list.iter().filter(move |field| field.known == known)
    }

    /// The first field of a name that is not [`Known`], in any case.
    pub fn find(&self, name: &[u8], bytes: &[u8]) -> Option<&Field> {
        self.list.iter().find(|field| field.name.of(bytes).eq_ignore_ascii_case(name))
    }

    /// Marks all fields whose name is in `set`.
    pub fn drop_known(&mut self, set: KnownSet) {
        if self.present.intersects(set) {
            for field in &mut self.list {
                field.dropped |= set.contains(field.known);
            }
        }
    }

    /// Marks the fields that `unwanted` picks.
    pub fn drop_where(&mut self, mut unwanted: impl FnMut(&Field) -> bool) {
        for field in &mut self.list {
            field.dropped = field.dropped || unwanted(field);
        }
    }

    /// Marks the field that was pushed last as [sensitive](Field::sensitive).
    pub(crate) fn mark_sensitive(&mut self) {
        if let Some(field) = self.list.last_mut() {
            field.sensitive = true;
        }
    }

    #[inline]
    pub(crate) fn end(&self) -> usize {
        self.end as usize
    }

    #[inline]
    pub(crate) fn set_end(&mut self, end: usize) {
        self.end = u16::try_from(end).unwrap_or(u16::MAX);
    }
}

impl Default for Fields {
    /// For the default limit of [`HeadLimits`](crate::h1::HeadLimits).
    fn default() -> Self {
        Self::with_limit(crate::h1::HeadLimits::DEFAULT.fields as usize)
    }
}
