//! What a command is: whether it may change something, and what it does to the connection that it came on.
//!
//! The server says it itself: `COMMAND` lists what it knows, with flags. A command only reads if its flags say so, and say
//! nothing to the contrary; what the server does not list is a write. A few commands are about the connection, or about the
//! server's own state, and change no data: those are listed here, and known before any server was asked.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::request::LONGEST_WORD;
use super::value::Value;

/// Whether a command may change something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Nature {
    /// It is about its connection, or about the server: nobody's leave is needed.
    Neutral,
    /// It reads.
    Read,
    /// It may write.
    Write,
}

/// What a subscription is to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Topic {
    /// Channels by name.
    Channel,
    /// Channels by pattern.
    Pattern,
    /// Channels of a shard.
    Shard,
}

/// What a command does to its connection, as far as it changes which replies come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Does {
    /// Nothing: one reply.
    Nothing,
    /// Nobody knows: the server's own table does not name it.
    Unknown,
    /// MULTI.
    Multi,
    /// EXEC.
    Exec,
    /// DISCARD.
    Discard,
    /// HELLO: it may change the version that is spoken.
    Hello,
    /// RESET.
    Reset,
    /// It is confirmed once for each of its words.
    Subscribe(Topic),
    /// It is confirmed once for each of its words; without any, for each subscription that there is.
    Unsubscribe(Topic),
    /// MONITOR: after its reply comes whatever the server is doing.
    Monitor,
    /// CLIENT REPLY.
    Reply,
    /// SYNC and its like: the connection becomes something else.
    Replicate,
    /// It is for this sidecar.
    Own,
}

/// One command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Whether it may change something.
    pub nature: Nature,
    /// What it does to its connection.
    pub does: Does,
    /// Whether its reply may be a long time coming although the server has nothing to do.
    pub blocks: bool,
    /// Whether what it is depends on the next word.
    pub contains: bool,
    /// How a role knows it: its name with a slash before, `/CONFIG/SET`.
    pub path: Box<str>,
}

/// All commands.
#[derive(Clone, Debug)]
pub struct Table {
    entries: HashMap<Box<[u8]>, Entry, BuildHasherDefault<Fnv>>,
    /// Whether it is a server's own.
    is_whole: bool,
}

impl Default for Table {
    /// What is known without a server.
    fn default() -> Table {
        let mut table = Table { entries: HashMap::default(), is_whole: false };
        for (nature, names) in KNOWN {
            for name in names.split_ascii_whitespace() {
                table.add(name, *nature, false);
            }
        }
        table
    }
}

/// What changes no data, by name: `a|b` is the command `a` with the word `b`.
const KNOWN: &[(Nature, &str)] = &[
    (
        Nature::Neutral,
        "auth hello quit reset select echo ping asking readonly readwrite multi discard watch unwatch subscribe unsubscribe \
         psubscribe punsubscribe ssubscribe sunsubscribe command command|count command|docs command|getkeys \
         command|getkeysandflags command|info command|list command|help client|id client|info client|list client|getname \
         client|setname client|setinfo client|getredir client|tracking client|trackinginfo client|caching client|no-evict \
         client|no-touch client|reply client|help",
    ),
    (
        Nature::Read,
        "monitor info time role lastsave dbsize pubsub|channels pubsub|numsub pubsub|numpat pubsub|shardchannels \
         pubsub|shardnumsub pubsub|help config|get config|help slowlog|get slowlog|len slowlog|help latency|doctor \
         latency|graph latency|histogram latency|history latency|latest latency|help memory|doctor memory|malloc-stats \
         memory|stats memory|help acl|whoami acl|list acl|cat acl|getuser acl|users acl|help cluster|info cluster|nodes \
         cluster|slots cluster|shards cluster|keyslot cluster|myid cluster|myshardid cluster|countkeysinslot \
         cluster|getkeysinslot cluster|replicas cluster|slaves cluster|links cluster|help script|exists script|help \
         function|list function|dump function|stats function|help module|list module|help object|help xinfo|help",
    ),
    (Nature::Write, "epochgate exec sync psync replconf pfcount eval evalsha fcall publish spublish"),
];

/// Flags with which a command does not only read, whatever else is said of it.
const NOT_ONLY_READ: [&[u8]; 2] = [b"write", b"may_replicate"];

impl Table {
    /// Adds what a server's answer to `COMMAND` says. `None` where it is no such answer.
    pub fn of_server(listed: &Value) -> Option<Table> {
        let mut table = Table { is_whole: true, ..Table::default() };
        let Value::List(commands) = listed else { return None };
        for command in commands {
            table.add_listed(command)?;
        }
        // An answer that knows no reads is none.
        table.find(b"get").is_some_and(|get| get.nature == Nature::Read).then_some(table)
    }

    fn add_listed(&mut self, command: &Value) -> Option<()> {
        let Value::List(parts) = command else { return None };
        let [name, _arity, flags, ..] = &**parts else { return None };
        let name = std::str::from_utf8(name.text()?).ok()?.to_ascii_lowercase();
        let Value::List(flags) = flags else { return None };
        let has = |flag: &[u8]| flags.iter().any(|one| one.text() == Some(flag));
        let reads = has(b"readonly") && !NOT_ONLY_READ.iter().any(|flag| has(flag));
        let nature = match self.entries.get(name.as_bytes()) {
            // Known, unless the server says that it writes after all.
            Some(known) if !has(b"write") => known.nature,
            _ if reads => Nature::Read,
            _ => Nature::Write,
        };
        self.add(&name, nature, has(b"blocking"));
        // Since Redis 7: what a container contains. Before, it is one command with one set of flags.
        if let Some(Value::List(contained)) = parts.get(9) {
            contained.iter().try_for_each(|command| self.add_listed(command))?;
        }
        Some(())
    }

    fn add(&mut self, name: &str, nature: Nature, blocks: bool) {
        if let Some((container, _)) = name.split_once('|') {
            match self.entries.get_mut(container.as_bytes()) {
                Some(entry) => entry.contains = true,
                None => {
                    self.add(container, Nature::Write, false);
                    return self.add(name, nature, blocks);
                }
            }
        }
        let path = format!("/{}", name.to_ascii_uppercase().replace('|', "/")).into();
        let contains = self.entries.get(name.as_bytes()).is_some_and(|entry| entry.contains);
        let entry = Entry { nature, does: does(name), blocks, contains, path };
        self.entries.insert(name.as_bytes().into(), entry);
    }

    /// Whether it is a server's own: what it does not name, that server does not call so.
    pub fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// The command of that name, in any case.
    #[inline]
    pub fn find(&self, name: &[u8]) -> Option<&Entry> {
        let mut lower = [0; LONGEST_WORD];
        let lower = lower.get_mut(..name.len())?;
        lower.copy_from_slice(name);
        lower.make_ascii_lowercase();
        // `a|b` is how `a b` is listed, and no command by itself.
        self.entries.get(&*lower).filter(|_| !name.contains(&b'|'))
    }

    /// What a command that contains others is with this next word; itself where it contains no such one.
    pub fn contained<'a>(&'a self, container: &'a Entry, name: &[u8], word: &[u8]) -> &'a Entry {
        let full = [name, b"|", word].concat().to_ascii_lowercase();
        self.entries.get(&*full).unwrap_or(container)
    }
}

fn does(name: &str) -> Does {
    match name {
        "multi" => Does::Multi,
        "exec" => Does::Exec,
        "discard" => Does::Discard,
        "hello" => Does::Hello,
        "reset" => Does::Reset,
        "subscribe" => Does::Subscribe(Topic::Channel),
        "psubscribe" => Does::Subscribe(Topic::Pattern),
        "ssubscribe" => Does::Subscribe(Topic::Shard),
        "unsubscribe" => Does::Unsubscribe(Topic::Channel),
        "punsubscribe" => Does::Unsubscribe(Topic::Pattern),
        "sunsubscribe" => Does::Unsubscribe(Topic::Shard),
        "monitor" => Does::Monitor,
        "client|reply" => Does::Reply,
        "sync" | "psync" | "replconf" => Does::Replicate,
        "epochgate" => Does::Own,
        _ => Does::Nothing,
    }
}

/// FNV-1a: for a few bytes the quickest. What is in the table is the server's and ours, so nobody can fill one place.
#[derive(Clone, Copy, Debug)]
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Fnv {
        Fnv(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn write_usize(&mut self, _: usize) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(name: &str, flags: &[&str], contained: Vec<Value>) -> Value {
        let text = |text: &str| Value::Text(text.as_bytes().to_vec());
        let flags = flags.iter().map(|flag| text(flag)).collect();
        let none = || Value::List(Vec::new());
        let mut parts = vec![text(name), Value::Integer(2), Value::List(flags)];
        parts.extend([Value::Integer(1), Value::Integer(1), Value::Integer(1), none(), none(), none()]);
        parts.push(Value::List(contained));
        Value::List(parts)
    }

    fn table() -> Table {
        let contained = vec![listed("object|freq", &["readonly"], vec![]), listed("object|help", &["loading"], vec![])];
        let set = vec![listed("config|set", &["admin"], vec![]), listed("config|get", &["admin"], vec![])];
        Table::of_server(&Value::List(vec![
            listed("get", &["readonly", "fast"], vec![]),
            listed("set", &["write", "denyoom"], vec![]),
            listed("pfcount", &["readonly", "may_replicate"], vec![]),
            listed("eval", &["noscript", "movablekeys"], vec![]),
            listed("eval_ro", &["noscript", "readonly"], vec![]),
            listed("blpop", &["write", "blocking"], vec![]),
            listed("xread", &["readonly", "blocking"], vec![]),
            listed("shutdown", &["admin"], vec![]),
            listed("ping", &["fast"], vec![]),
            listed("echo", &["write"], vec![]),
            listed("object", &[], contained),
            listed("config", &[], set),
        ]))
        .expect("a table")
    }

    #[test]
    fn only_what_the_server_says_only_reads_is_a_read() {
        let table = table();
        let nature = |name: &str| table.find(name.as_bytes()).map(|entry| entry.nature);
        for read in ["get", "GET", "gEt", "eval_ro", "xread", "dbsize"] {
            assert_eq!(nature(read), Some(Nature::Read), "{read}");
        }
        for write in ["set", "pfcount", "eval", "evalsha", "blpop", "shutdown", "publish", "exec", "client", "config"] {
            assert_eq!(nature(write), Some(Nature::Write), "{write}");
        }
        assert_eq!(nature("echo"), Some(Nature::Write), "the server knows better");
        for neutral in ["ping", "multi", "watch", "SUBSCRIBE", "auth"] {
            assert_eq!(nature(neutral), Some(Nature::Neutral), "{neutral}");
        }
        for unknown in ["", "flushall", "object|freq", "client|reply", &"g".repeat(65)] {
            assert_eq!(nature(unknown), None, "{unknown}");
        }
        assert!(table.find(b"blpop").expect("listed").blocks && table.find(b"xread").expect("listed").blocks);
    }

    #[test]
    fn what_a_container_contains_is_told_apart() {
        let table = table();
        let of = |name: &[u8], word: &[u8]| {
            let container = table.find(name).expect("listed");
            assert!(container.contains);
            let entry = table.contained(container, name, word);
            (entry.nature, entry.path.to_string())
        };
        assert_eq!(of(b"OBJECT", b"Freq"), (Nature::Read, "/OBJECT/FREQ".into()));
        assert_eq!(of(b"object", b"nonsense"), (Nature::Write, "/OBJECT".into()));
        assert_eq!(of(b"config", b"get"), (Nature::Read, "/CONFIG/GET".into()));
        assert_eq!(of(b"config", b"set"), (Nature::Write, "/CONFIG/SET".into()));
        assert_eq!(of(b"client", b"kill"), (Nature::Write, "/CLIENT".into()));
        assert_eq!(of(b"client", b"ID"), (Nature::Neutral, "/CLIENT/ID".into()));
    }

    #[test]
    fn without_a_server_hardly_anything_is_known() {
        let table = Table::default();
        assert!(table.find(b"get").is_none());
        assert_eq!(table.find(b"ping").expect("known").nature, Nature::Neutral);
        assert_eq!(table.find(b"reset").expect("known").does, Does::Reset);
        for no_table in [Value::Integer(1), Value::List(vec![]), Value::List(vec![Value::Integer(1)])] {
            assert!(Table::of_server(&no_table).is_none());
        }
    }
}
