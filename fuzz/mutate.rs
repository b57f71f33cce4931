//! One input made of another, by chance.

/// Numbers that depend on a seed only (SplitMix64).
pub struct Dice(u64);

impl Dice {
    /// Another seed, other numbers.
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `count`, which is not 0.
    pub fn below(&mut self, count: usize) -> usize {
        usize::try_from(self.next() % count as u64).expect("it is below a usize")
    }
}

/// What many grammars have in common, and what their readers stumble over.
const ODD: &[&str] = &[
    "0",
    "1",
    "-1",
    "+1",
    "00",
    "0x7",
    "1e9",
    "999999999999999",
    "1000000000000000",
    "18446744073709551615",
    "18446744073709551616",
    "9223372036854775808",
    "4294967296",
    "340282366920938463463374607431768211456",
    "\r\n",
    "\n",
    "\r",
    "\0",
    "\t",
    "  ",
    ";",
    ";;",
    "=",
    "\"",
    "\\",
    ":",
    "::",
    ",",
    ", ",
    "/",
    "//",
    "/./",
    "/../",
    "%2F",
    "%2e",
    "%",
    "%00",
    "?",
    "#",
    "*",
    "{",
    "}",
    "{}",
    "[]",
    "..",
    "null",
    "true",
    "é",
    "٧",
    "\u{202e}",
    "\u{feff}",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
];

/// Makes inputs of those that are kept.
pub struct Mutator<'a> {
    pub dice: &'a mut Dice,
    /// What this target's grammar is made of.
    pub words: &'a [&'a str],
    pub kept: &'a [Vec<u8>],
    pub longest: usize,
}

impl Mutator<'_> {
    /// One more.
    pub fn make(mut self) -> Vec<u8> {
        let mut input = self.kept[self.dice.below(self.kept.len())].clone();
        for _ in 0..1 << self.dice.below(5) {
            self.change(&mut input);
        }
        input.truncate(self.longest);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let (from, to) = self.range(input.len());
        match self.dice.below(11) {
            0 if !input.is_empty() => {
                let (at, bit) = (self.dice.below(input.len()), self.dice.below(8));
                input[at] ^= 1 << bit;
            }
            1 if !input.is_empty() => {
                let at = self.dice.below(input.len());
                input[at] = u8::try_from(self.dice.below(256)).expect("a byte");
            }
            2 => drop(input.drain(from..to)),
            3 => input.truncate(from),
            4 => {
                let again: Vec<u8> = input[from..to].to_vec();
                input.splice(to..to, again);
            }
            5 => {
                let odd = ODD[self.dice.below(ODD.len())];
                input.splice(from..from, odd.bytes());
            }
            6 => {
                let odd = ODD[self.dice.below(ODD.len())];
                input.splice(from..to, odd.bytes());
            }
            7 | 8 if !self.words.is_empty() => {
                let word = self.words[self.dice.below(self.words.len())];
                let end = if self.dice.below(2) == 0 { from } else { to };
                input.splice(from..end, word.bytes());
            }
            9 => self.number(input),
            _ => {
                let other = &self.kept[self.dice.below(self.kept.len())];
                let (start, end) = {
                    let dice = &mut *self.dice;
                    range(dice, other.len())
                };
                input.splice(from..to, other[start..end].iter().copied());
            }
        }
    }

    /// Another number in the place of one that is there.
    fn number(&mut self, input: &mut Vec<u8>) {
        let digit = |byte: &u8| byte.is_ascii_digit();
        let starts: Vec<usize> =
            (0..input.len()).filter(|at| digit(&input[*at]) && (*at == 0 || !digit(&input[at - 1]))).collect();
        if starts.is_empty() {
            return;
        }
        let at = starts[self.dice.below(starts.len())];
        let end = at + input[at..].iter().take_while(|byte| digit(byte)).count();
        let number = match self.dice.below(3) {
            0 => ODD[self.dice.below(14)].to_owned(),
            1 => self.dice.below(1000).to_string(),
            _ => self.dice.next().to_string(),
        };
        input.splice(at..end, number.bytes());
    }

    fn range(&mut self, length: usize) -> (usize, usize) {
        range(self.dice, length)
    }
}

/// A short range more often than a long one.
fn range(dice: &mut Dice, length: usize) -> (usize, usize) {
    let from = dice.below(length + 1);
    let most = (length - from).min(1 << dice.below(10));
    (from, from + dice.below(most + 1))
}
