//! Reads and writes the header blocks of h2 (RFC 7541), so that what the engine will not take can be told before it reads it.
//!
//! What a stranger sends is read here before anything else looks at it, so the reader has no arithmetic that can overflow and no
//! index that can be out of bounds. The engine's own reader (h2's) is private to it. The crate `hpack`, of which most others
//! are copies, panics at bad input and is not kept (RUSTSEC-2023-0084, RUSTSEC-2023-0085), and the copies bound neither the
//! list of fields nor where a size may change.

use std::collections::VecDeque;
use std::sync::LazyLock;

/// The room of a dynamic table, in bytes, which nobody has changed by a setting (RFC 9113 §6.5.2).
const TABLE: usize = 4096;
/// What an entry counts beside its name and its value (RFC 7541 §4.1).
const ENTRY: usize = 32;

/// The static table (RFC 7541, appendix A).
const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

/// How many bits each byte takes in the Huffman code (RFC 7541, appendix B). The code is canonical, so that these tell all of it.
const LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28,
    28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7,
    6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24,
    23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22,
    23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27,
    26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25,
    24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];

/// The most bits that a byte takes.
const LONGEST: usize = 30;

/// The Huffman code by length: the first code, how many there are, and where their bytes begin in `order`.
struct Huffman {
    lengths: [(u32, u32, usize); LONGEST + 1],
    order: Vec<u8>,
}

static HUFFMAN: LazyLock<Huffman> = LazyLock::new(|| {
    let (mut lengths, mut order, mut code) = ([(0, 0, 0); LONGEST + 1], Vec::with_capacity(256), 0_u32);
    for (length, place) in lengths.iter_mut().enumerate() {
        code <<= 1;
        let begins = order.len();
        order.extend((0..=u8::MAX).zip(LENGTHS).filter(|(_, bits)| usize::from(*bits) == length).map(|(byte, _)| byte));
        let count = u32::try_from(order.len() - begins).unwrap_or(0);
        *place = (code, count, begins);
        code += count;
    }
    Huffman { lengths, order }
});

/// So many fields of a list that is too large are kept, and so much of the value of each: of a request they tell what it is.
const TOLD_FIELDS: usize = 8;
const TOLD_BYTES: usize = 1024;

/// A list of fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct List {
    /// Each name with its value.
    pub(super) fields: Vec<(Vec<u8>, Vec<u8>)>,
    /// Whether these are all fields of the block, with all of their values.
    pub(super) whole: bool,
}

/// Reads the blocks of one direction of a connection, in their order.
#[derive(Debug)]
pub(super) struct Decoder {
    /// The dynamic table, the newest entry first.
    entries: VecDeque<(Vec<u8>, Vec<u8>)>,
    size: usize,
    room: usize,
}

impl Decoder {
    pub(super) fn new() -> Self {
        Self { entries: VecDeque::new(), size: 0, room: TABLE }
    }

    /// The fields of `block`: all of them when they take no more than `most` bytes, else the first. Nothing when it is no block.
    pub(super) fn decode(&mut self, block: &[u8], most: usize) -> Option<List> {
        let (mut fields, mut taken) = (Vec::new(), 0);
        let mut rest = block;
        while let Some(first) = rest.first().copied() {
            let mut field = match first {
                0x80.. => self.entry(integer(&mut rest, 7)?)?,
                0x40..=0x7f => {
                    let field = self.literal(&mut rest, 6)?;
                    self.insert(field.clone());
                    field
                }
                0x20..=0x3f => {
                    let room = integer(&mut rest, 5)?;
                    // A change of size stands before the first field (RFC 7541 §4.2).
                    if room > TABLE || taken > 0 {
                        return None;
                    }
                    self.room = room;
                    self.evict(0);
                    continue;
                }
                0..=0x1f => self.literal(&mut rest, 4)?,
            };
            taken += field.0.len() + field.1.len() + ENTRY;
            if taken <= most {
                fields.push(field);
            } else if fields.len() < TOLD_FIELDS {
                field.1.truncate(TOLD_BYTES);
                fields.push(field);
            }
        }
        Some(List { fields, whole: taken <= most })
    }

    fn literal(&self, rest: &mut &[u8], bits: u8) -> Option<(Vec<u8>, Vec<u8>)> {
        let name = match integer(rest, bits)? {
            0 => string(rest)?,
            index => self.entry(index)?.0,
        };
        Some((name, string(rest)?))
    }

    fn entry(&self, index: usize) -> Option<(Vec<u8>, Vec<u8>)> {
        let index = index.checked_sub(1)?;
        match STATIC.get(index) {
            Some((name, value)) => Some((name.as_bytes().to_vec(), value.as_bytes().to_vec())),
            None => self.entries.get(index - STATIC.len()).cloned(),
        }
    }

    fn insert(&mut self, field: (Vec<u8>, Vec<u8>)) {
        let size = field.0.len() + field.1.len() + ENTRY;
        self.evict(size);
        if size <= self.room {
            self.size += size;
            self.entries.push_front(field);
        }
    }

    /// Makes room for an entry of `size`.
    fn evict(&mut self, size: usize) {
        while self.size + size > self.room
            && let Some((name, value)) = self.entries.pop_back()
        {
            self.size -= name.len() + value.len() + ENTRY;
        }
    }
}

/// An integer whose first byte has `bits` of it (RFC 7541 §5.1).
fn integer(rest: &mut &[u8], bits: u8) -> Option<usize> {
    let (first, mut behind) = rest.split_first()?;
    let most = (1_usize << bits) - 1;
    let mut value = usize::from(*first) & most;
    if value == most {
        let mut shift = 0;
        loop {
            let (next, after) = behind.split_first()?;
            behind = after;
            // No length and no index of this size is met.
            if shift > 21 {
                return None;
            }
            value += usize::from(next & 0x7f) << shift;
            shift += 7;
            if next & 0x80 == 0 {
                break;
            }
        }
    }
    *rest = behind;
    Some(value)
}

/// A string, as it is or in the Huffman code (RFC 7541 §5.2).
fn string(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let coded = rest.first()? & 0x80 != 0;
    let length = integer(rest, 7)?;
    let (text, behind) = rest.split_at_checked(length)?;
    *rest = behind;
    if coded { plain(text) } else { Some(text.to_vec()) }
}

/// What `coded` says. What is left of its last byte are the first bits of a code that stands for nothing: ones.
fn plain(coded: &[u8]) -> Option<Vec<u8>> {
    let huffman = &*HUFFMAN;
    let mut text = Vec::with_capacity(coded.len() * 2);
    let (mut code, mut length) = (0_u32, 0);
    for byte in coded {
        for bit in (0..8).rev() {
            code = code << 1 | u32::from(byte >> bit & 1);
            length += 1;
            let (first, count, begins) = *huffman.lengths.get(length)?;
            if let Some(place) = code.checked_sub(first).filter(|place| *place < count) {
                text.push(*huffman.order.get(begins + usize::try_from(place).ok()?)?);
                (code, length) = (0, 0);
            }
        }
    }
    (length < 8 && code == (1 << length) - 1).then_some(text)
}

/// Writes a field as a literal that no table is to remember.
pub(super) fn encode(name: &[u8], value: &[u8], block: &mut Vec<u8>) {
    block.push(0);
    for text in [name, value] {
        let length = text.len();
        match u8::try_from(length) {
            Ok(length) if length < 0x7f => block.push(length),
            _ => {
                block.push(0x7f);
                let mut more = length - 0x7f;
                while more >= 0x80 {
                    block.push(0x80 | u8::try_from(more & 0x7f).unwrap_or(0));
                    more >>= 7;
                }
                block.push(u8::try_from(more).unwrap_or(0));
            }
        }
        block.extend_from_slice(text);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Enough for any block of a test.
    const MOST: usize = 1 << 20;

    fn read(decoder: &mut Decoder, block: &str) -> Option<Vec<(String, String)>> {
        let list = decoder.decode(&hex::decode(block.replace(' ', "")).unwrap(), MOST)?;
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        assert!(list.whole, "{block}");
        Some(list.fields.into_iter().map(|(name, value)| (text(name), text(value))).collect())
    }

    fn fields(told: &[(&str, &str)]) -> Option<Vec<(String, String)>> {
        Some(told.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    /// The requests of RFC 7541, appendix C.3 and C.4.
    const REQUESTS: [&[(&str, &str)]; 3] = [
        &[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "www.example.com")],
        &[
            (":method", "GET"),
            (":scheme", "http"),
            (":path", "/"),
            (":authority", "www.example.com"),
            ("cache-control", "no-cache"),
        ],
        &[
            (":method", "GET"),
            (":scheme", "https"),
            (":path", "/index.html"),
            (":authority", "www.example.com"),
            ("custom-key", "custom-value"),
        ],
    ];

    #[test]
    fn the_examples_of_the_rfc_are_read_as_it_says() {
        for blocks in [
            [
                "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
                "8286 84be 5808 6e6f 2d63 6163 6865",
                "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
            ],
            [
                "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
                "8286 84be 5886 a8eb 1064 9cbf",
                "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
            ],
        ] {
            let mut decoder = Decoder::new();
            for (block, told) in blocks.into_iter().zip(REQUESTS) {
                assert_eq!(read(&mut decoder, block), fields(told), "{block}");
            }
            assert_eq!(decoder.size, 164);
        }
        // Appendix C.2: with and without a place in the table.
        let mut decoder = Decoder::new();
        assert_eq!(read(&mut decoder, "040c 2f73 616d 706c 652f 7061 7468"), fields(&[(":path", "/sample/path")]));
        assert_eq!(read(&mut decoder, "1008 7061 7373 776f 7264 0673 6563 7265 74"), fields(&[("password", "secret")]));
        assert_eq!(decoder.size, 0);
    }

    #[test]
    fn what_is_no_block_is_none() {
        for block in [
            "80",
            "be",
            "ff8080808001",
            "41",
            "4105 61",
            "00ff",
            "4183 ffff ffff",
            "4181 00",
            "3fe2 1f",
            "82 20",
            "4184 ffff fffc",
        ] {
            assert_eq!(read(&mut Decoder::new(), block), None, "{block}");
        }
        assert_eq!(read(&mut Decoder::new(), "3fe1 1f 82"), fields(&[(":method", "GET")]), "the table as large as it is");
    }

    #[test]
    fn what_is_too_much_is_not_kept_and_the_table_goes_on() {
        let mut decoder = Decoder::new();
        let mut block = hex::decode("400a637573746f6d2d6b65790c637573746f6d2d76616c7565").unwrap();
        block.extend([0xbe; 1000]);
        let list = decoder.decode(&block, 540).unwrap();
        assert_eq!((list.fields.len(), list.whole), (10, false));
        assert_eq!(read(&mut decoder, "be"), fields(&[("custom-key", "custom-value")]));
        assert!(decoder.decode(&[0xbe; 10], 540).unwrap().whole);
    }

    #[test]
    fn the_first_fields_of_what_is_too_much_are_told_in_part() {
        let mut block = Vec::new();
        encode(b":method", b"GET", &mut block);
        encode(b":path", &[b'a'; 5000], &mut block);
        (0..20).for_each(|_| encode(b"b", b"c", &mut block));
        let list = Decoder::new().decode(&block, 1000).unwrap();
        assert_eq!((list.fields.len(), list.whole), (TOLD_FIELDS, false));
        assert_eq!(list.fields[0], (b":method".to_vec(), b"GET".to_vec()));
        assert_eq!(list.fields[1], (b":path".to_vec(), vec![b'a'; TOLD_BYTES]));
    }

    /// `text` in the Huffman code.
    fn coded(text: &[u8]) -> Vec<u8> {
        let mut bits = String::new();
        for byte in text {
            let length = usize::from(LENGTHS[usize::from(*byte)]);
            let (first, _, begins) = HUFFMAN.lengths[length];
            let place = HUFFMAN.order[begins..].iter().position(|other| other == byte).unwrap();
            bits.push_str(&format!("{:0length$b}", first + u32::try_from(place).unwrap()));
        }
        while !bits.len().is_multiple_of(8) {
            bits.push('1');
        }
        bits.as_bytes().chunks(8).map(|byte| u8::from_str_radix(str::from_utf8(byte).unwrap(), 2).unwrap()).collect()
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(told in prop::collection::vec((any::<Vec<u8>>(), prop::collection::vec(any::<u8>(), 0..400)), 0..6)) {
            let mut block = Vec::new();
            told.iter().for_each(|(name, value)| encode(name, value, &mut block));
            prop_assert_eq!(Decoder::new().decode(&block, MOST), Some(List { fields: told, whole: true }));
        }

        #[test]
        fn the_huffman_code_says_what_was_coded(text in any::<Vec<u8>>()) {
            prop_assert_eq!(plain(&coded(&text)), Some(text));
        }

        #[test]
        fn no_bytes_panic_and_the_table_keeps_within_its_room(blocks in prop::collection::vec(any::<Vec<u8>>(), 0..20)) {
            let mut decoder = Decoder::new();
            for block in blocks {
                decoder.decode(&block, MOST);
                prop_assert!(decoder.size <= TABLE);
                let counted: usize = decoder.entries.iter().map(|(name, value)| name.len() + value.len() + ENTRY).sum();
                prop_assert_eq!(decoder.size, counted);
            }
        }
    }
}
