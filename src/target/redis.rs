//! Proof at Redis: whose socket is gone is ended, and seen to be gone.
//!
//! Redis runs one command at a time. So when it answers the question who its clients are, none of theirs is running; and one
//! that it does not list any more sends it nothing more. While a script keeps it busy it does not answer: then there is no
//! proof, and the gate stays shut until there is.
//!
//! The connection is a new one each time. A server accepts connections in the order in which they were made, so when it serves
//! this one it knows of every earlier one, also of a predecessor's whose first command it has not read yet.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::orphans::{Listed, Vantage, orphans_now};
use super::{Proof, Prover, Proving};
use crate::config::resolved::{Control, Upstream};
use crate::fence::{Resource, Term};
use crate::net::dial::ClientSlot;
use crate::net::{Dial, Speaks, UpstreamDial};
use crate::protocol::redis::client::{Client, Failure};
use crate::protocol::redis::value::Value;

/// One attempt takes no longer.
const PATIENCE: Duration = Duration::from_secs(5);
/// What was killed, or is about to be noticed as gone, is looked for again after so long.
const AGAIN: Duration = Duration::from_millis(10);

/// A guard's own way to a Redis server.
pub struct RedisProver {
    authority: Rc<str>,
    dial: Rc<dyn Dial>,
    control: Control,
}

/// A number that no client has: asking to end it shows whether one may.
const NOBODY: &[u8] = b"9223372036854775807";

/// What `epochgate check` wants to know of a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Where the clients come from that are not of this host, and are no replicas.
    pub around: Vec<IpAddr>,
}

/// A client, as the server lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    id: i64,
    /// None where the server itself cannot tell any more: its connection has just been reset.
    address: Option<SocketAddr>,
    /// It follows the server, and writes nothing there.
    is_replica: bool,
}

impl RedisProver {
    /// To the server of this upstream, logging in as `control`; in the slot is what TLS sessions are made with.
    pub fn new(upstream: &Upstream, control: Control, tls: ClientSlot) -> RedisProver {
        let dial = Rc::new(UpstreamDial::new(upstream, tls));
        RedisProver { authority: (&*upstream.authority).into(), dial, control }
    }

    /// Looks whether a proof could be had now, and who has not come from this host. It ends nobody.
    ///
    /// # Errors
    /// Why there could be no proof.
    pub async fn look(&self) -> Result<Seen, String> {
        let looked = async {
            let (mut client, own) = self.connect().await?;
            let (rows, vantage) = self.list(&mut client, own).await?;
            let needed: [&[&[u8]]; 2] = [&[b"CLIENT", b"KILL", b"ID", NOBODY], &[b"COMMAND", b"COUNT"]];
            for command in needed {
                client.ask(command).await.map_err(|failure| self.told(&failure))?;
            }
            let strangers = rows.iter().filter(|row| !row.is_replica).filter_map(|row| row.address);
            Ok(Seen { around: strangers.filter(|address| !vantage.is_own(*address)).map(|it| it.ip()).collect() })
        };
        timeout(PATIENCE, looked).await.unwrap_or_else(|_| Err(self.late()))
    }

    fn told(&self, failure: &Failure) -> String {
        format!("Redis at {}: {}", self.authority, explained(failure))
    }

    fn late(&self) -> String {
        format!("Redis at {} did not answer within {PATIENCE:?}", self.authority)
    }

    /// A connection that is logged in, with its number at the server.
    async fn connect(&self) -> Result<(Client, i64), String> {
        let stream = self.dial.dial(&self.authority, Speaks::Sessions).await.map_err(|error| error.to_string())?;
        let mut client = Client::new(stream);
        client.log_in(Some(&self.control)).await.map_err(|failure| self.told(&failure))?;
        match client.ask(&[b"CLIENT", b"ID"]).await.map_err(|failure| self.told(&failure))? {
            Value::Integer(own) => Ok((client, own)),
            _ => Err(self.told(&Failure::Connection("its answer to CLIENT ID is no number".into()))),
        }
    }

    /// Whom the server serves now, and where this host stands towards it.
    async fn list(&self, client: &mut Client, own: i64) -> Result<(Vec<Row>, Vantage), String> {
        let listed = client.ask(&[b"CLIENT", b"LIST"]).await.map_err(|failure| self.told(&failure))?;
        let rows = listed.text().and_then(|text| rows(&String::from_utf8_lossy(text)));
        let no_list = || self.told(&Failure::Connection("its CLIENT LIST is of another form".into()));
        let rows = rows.ok_or_else(no_list)?;
        let vantage = self.vantage(client, &rows, own)?;
        Ok((rows, vantage))
    }

    async fn attempt(&self) -> Result<Proof, String> {
        let (mut client, own) = self.connect().await?;
        let mut ended = 0;
        loop {
            let (rows, vantage) = self.list(&mut client, own).await?;
            let (known, unknown): (Vec<&Row>, Vec<&Row>) = rows.iter().partition(|row| row.address.is_some());
            let sessions: Vec<Listed> =
                known.iter().filter_map(|row| Some(Listed { client: row.address?, order: row.id })).collect();
            // After the list: what has no socket now had none when the server is asked again.
            let gone = orphans_now(&sessions, &vantage).map_err(|error| error.to_string())?;
            if gone.is_empty() && unknown.is_empty() {
                return Ok(Proof { ended, from: Some(vantage.local()), ..Proof::default() });
            }
            for place in gone {
                let id = sessions[place].order.to_string();
                match client.ask(&[b"CLIENT", b"KILL", b"ID", id.as_bytes()]).await {
                    Ok(Value::Integer(killed)) => ended += usize::try_from(killed).unwrap_or_default(),
                    Ok(_) => {}
                    Err(failure) => return Err(self.told(&failure)),
                }
            }
            sleep(AGAIN).await;
        }
    }

    fn vantage(&self, client: &Client, rows: &[Row], own: i64) -> Result<Vantage, String> {
        let ends = || -> io::Result<(SocketAddr, SocketAddr)> {
            let stream = client.stream();
            let none = || io::Error::other("the control connection is not over TCP");
            Ok((stream.local_address().ok_or_else(none)?, stream.peer_address().ok_or_else(none)?))
        };
        let (local, server) = ends().map_err(|error| error.to_string())?;
        let seen = rows.iter().find(|row| row.id == own).and_then(|row| row.address);
        let seen = seen.ok_or_else(|| format!("Redis at {} does not list the control connection", self.authority))?;
        Vantage::new(local, server, seen)
    }
}

impl Prover for RedisProver {
    fn prove<'a>(&'a self, _: &'a Term, _: &'a Resource) -> Proving<'a> {
        Box::pin(async move { timeout(PATIENCE, self.attempt()).await.unwrap_or_else(|_| Err(self.late())) })
    }
}

/// The clients that are not links of replication of the server's own making; `None` where the text is no list of clients.
fn rows(text: &str) -> Option<Vec<Row>> {
    let row = |line: &str| -> Option<Option<Row>> {
        let field = |name: &str| {
            line.split(' ').find_map(|field| field.strip_prefix(name).and_then(|rest| rest.strip_prefix('=')))
        };
        let (id, address, flags) = (field("id")?.parse().ok()?, field("addr")?, field("flags")?);
        // The server's connection to its own master, and what comes over a unix socket.
        if flags.contains('M') || address.starts_with('/') {
            return Some(None);
        }
        let address = if address.starts_with('?') { None } else { Some(address.parse().ok()?) };
        Some(Some(Row { id, address, is_replica: flags.contains('S') }))
    };
    let rows: Option<Vec<Option<Row>>> = text.lines().filter(|line| !line.is_empty()).map(row).collect();
    Some(rows?.into_iter().flatten().collect())
}

/// What the server says, with what to do.
fn explained(failure: &Failure) -> String {
    let hint = match failure {
        Failure::Refused(said) if said.starts_with("NOPERM") => {
            "; the user of upstream.control needs: ACL SETUSER <user> on >… resetchannels +client +command"
        }
        Failure::Refused(said) if said.starts_with("NOAUTH") || said.starts_with("WRONGPASS") => {
            "; set upstream.control.user and password_file to what the server takes"
        }
        Failure::Refused(said) if said.starts_with("BUSY") => {
            "; a script runs, which may be of an older epoch: SCRIPT KILL ends one that has not written yet"
        }
        _ => "",
    };
    format!("{failure}{hint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_read_as_redis_lists_them() {
        let text = "id=3 addr=127.0.0.1:40000 laddr=127.0.0.1:6379 fd=8 name=a age=1 idle=0 flags=N db=0 sub=0 cmd=get user=default\n\
                    id=4 addr=[::1]:40001 laddr=[::1]:6379 fd=9 name= age=1 idle=0 flags=b db=0 sub=0 cmd=blpop user=default\n\
                    id=5 addr=?:0 laddr=?:0 fd=10 name= age=1 idle=0 flags=N db=0 sub=0 cmd=NULL user=default\n\
                    id=6 addr=127.0.0.1:6380 laddr=127.0.0.1:40009 fd=11 name= age=1 idle=0 flags=M db=0 cmd=NULL user=(superuser)\n\
                    id=7 addr=/run/redis.sock:0 laddr=/run/redis.sock:0 fd=12 name= age=1 idle=0 flags=U db=0 cmd=get user=default\n\
                    id=8 addr=10.0.0.8:40001 laddr=10.0.0.7:6379 fd=9 name= age=1 idle=0 flags=S db=0 sub=0 cmd=replconf user=default\n";
        let at = |text: &str| Some(text.parse().expect("an address"));
        let expected = [
            Row { id: 3, address: at("127.0.0.1:40000"), is_replica: false },
            Row { id: 4, address: at("[::1]:40001"), is_replica: false },
            Row { id: 5, address: None, is_replica: false },
            Row { id: 8, address: at("10.0.0.8:40001"), is_replica: true },
        ];
        assert_eq!(rows(text).expect("a list"), expected);
        for no_list in ["id=x addr=1.2.3.4:5 flags=N", "addr=1.2.3.4:5 flags=N", "id=1 addr=here flags=N", "OK"] {
            assert_eq!(rows(no_list), None, "{no_list}");
        }
    }

    #[test]
    fn what_the_server_says_comes_with_what_to_do() {
        let said = |text: &str| explained(&Failure::Refused(text.into()));
        assert!(said("NOPERM this user has no permissions").contains("+client"));
        assert!(said("NOAUTH Authentication required.").contains("password_file"));
        assert!(said("BUSY Redis is busy running a script.").contains("SCRIPT KILL"));
    }
}
