//! One guard before one target: what is applied there, and in which order.

use std::net::TcpListener;
use std::time::Duration;

use bytes::Bytes;

use crate::support::client::{Answer, Connection};
use crate::support::process::{LONG, eventually};
use crate::support::world::{QUARANTINE, Sidecar, World, answered};
use crate::{Fence, Seen};

/// A write is sent with the stamp of a term that is over.
pub fn a_stamp_of_yesterday(fence: Fence) -> Seen {
    let mut world = World::embedded();
    let guard = fence.of(world.guard("guard")).start();
    let (_, one) = world.elect("orders-a");
    assert_eq!(guard.put("/old", &one).status, 200);
    let (term, two) = world.elect("orders-b");
    guard.await_open(&term);
    assert_eq!(guard.put("/new", &two).status, 200);
    let answer = guard.put("/late", &one);
    assert!(answer.status == 200 || answer.refused() == Some("stale_epoch"), "{}", answer.text());
    out_of_order(&world)
}

/// An old write is in the target when the epoch moves on.
pub fn a_slow_old_write(fence: Fence) -> Seen {
    let mut world = World::embedded();
    let guard = fence.of(world.guard("guard")).start();
    let (_, one) = world.elect("orders-a");
    world.upstream.next("/old", "apply=@old");
    let old = guard.write("/old", Some(&one));
    world.await_arrival("/old");
    let seen = race(fence, &mut world, &guard);
    assert_eq!(answered(old), 200);
    seen
}

/// The guard has answered 504 for the old write, which is still in the target.
pub fn a_write_that_the_guard_gave_up(fence: Fence) -> Seen {
    let mut world = World::embedded();
    let guard = fence.of(world.guard("guard").hasty()).start();
    let (_, one) = world.elect("orders-a");
    world.upstream.next("/old", "apply=@old");
    assert_eq!(guard.put("/old", &one).refused(), Some("upstream_timeout"));
    race(fence, &mut world, &guard)
}

/// The target, a proxy itself, has given up on somebody who is still at it.
pub fn a_target_that_says_504(fence: Fence) -> Seen {
    let mut world = World::embedded();
    let guard = fence.of(world.guard("guard").hasty()).start();
    let (_, one) = world.elect("orders-a");
    world.upstream.next("/old", "late=@old, status=504");
    assert_eq!(guard.put("/old", &one).status, 504);
    race(fence, &mut world, &guard)
}

/// The target has begun to answer, and applies the write before it ends.
pub fn an_answer_in_two_parts(fence: Fence) -> Seen {
    let mut world = World::embedded();
    let guard = fence.of(world.guard("guard")).start();
    let (_, one) = world.elect("orders-a");
    world.upstream.next("/old", "split=@old");
    let mut client = Connection::open(guard.address).unwrap();
    client.send_head("PUT", "/old", &[("Fencing-Epoch", &one), ("Content-Length", "4")]).unwrap();
    client.send(b"body").unwrap();
    let mut answer = Vec::new();
    while !answer.windows(4).any(|piece| piece == b"half") {
        answer.extend(client.receive().unwrap());
    }
    race(fence, &mut world, &guard)
}

/// The target answers before it has the whole request, and applies it when the rest has come.
pub fn an_answer_before_the_request(fence: Fence) -> Seen {
    let mut world = World::embedded();
    let guard = fence.of(world.guard("guard").hasty()).start();
    let (_, one) = world.elect("orders-a");
    world.upstream.next("/old", "eager");
    let mut client = Connection::open(guard.address).unwrap();
    client.begin_chunked("PUT", "/old", &[("Fencing-Epoch", &one)]).unwrap();
    client.send_chunk(b"half").unwrap();
    assert_eq!(client.answer().unwrap().status, 200);
    let (_, two) = world.elect("orders-b");
    assert_eq!(guard.put("/new", &two).status, 200);
    // In force the guard has ended the connection: these fail, or go nowhere.
    let _ = client.send_chunk(b"the rest").and_then(|()| client.end_chunks(&[]));
    eventually("the old write has ended, one way or the other", LONG, || {
        world.upstream.log().iter().any(|write| write.head.path == "/old")
    });
    out_of_order(&world)
}

/// The old write is in the kernel's buffers, on its way to a target that does not read; the guard has given it up.
pub fn a_target_that_does_not_read(fence: Fence) -> Seen {
    let mut world = World::embedded();
    let target = Unreading::start();
    let upstream =
        format!("upstream: {{ url: \"http://{}\", response_timeout: 1s, send_timeout: 1s }}", target.address());
    let guard = fence.of(world.guard("guard").hasty().listener(&upstream)).start();
    let (_, one) = world.elect("orders-a");
    let mut client = Connection::open(guard.address).unwrap();
    let body = vec![b'x'; Unreading::BODY];
    let answer = client.request("PUT", "/old", &[("Fencing-Epoch", &one)], &body).unwrap();
    assert_eq!(answer.refused(), Some("upstream_timeout"));
    let (_, two) = world.elect("orders-b");
    let new = guard.write("/new", Some(&two));
    target.answer_the_next();
    assert_eq!(answered(new), 200);
    target.read_the_first().then(|| "applied: /new, then /old".to_owned())
}

/// A client resets its upload with RST_STREAM(NO_ERROR), which hyper takes for its end.
pub fn an_upload_cut_short(fence: Fence) -> Seen {
    let mut world = World::embedded();
    let guard = fence.of(world.guard("guard"));
    let to_http1 = format!("upstream: {{ url: \"{}\", version: http1 }}", world.upstream.url());
    let guard = guard.listener(&to_http1).top("drain: { quarantine: 35s }").start();
    let (_, one) = world.elect("orders-a");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(guard.address).await.unwrap();
        let (sender, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let mut sender = sender.ready().await.unwrap();
        let put = http::Request::put(format!("http://{}/cut", guard.address)).header("fencing-epoch", &one);
        let (_answer, mut body) = sender.send_request(put.body(()).unwrap(), false).unwrap();
        body.send_data(Bytes::from_static(b"half"), false).unwrap();
        while !world.has_arrived("/cut") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        body.send_reset(h2::Reason::NO_ERROR);
        while world.upstream.log().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    world.applied().pop().map(|path| format!("applied: {path}, with half of its body"))
}

/// Somebody sends an epoch that nobody has ever minted.
pub fn a_forged_epoch(fence: Fence) -> Seen {
    let mut world = World::embedded();
    let guard = fence.of(world.guard("guard").top("workers: 1")).start();
    let (_, one) = world.elect("orders-a");
    assert_eq!(guard.put("/a", &one).status, 200);
    let forged = guard.put("/forged", "999999999999999;nonce=:AAAAAAAAAAA=:;by=\"mallory\";res=\"orders\"");
    let leaders = guard.put("/b", &one);
    let (forged, leaders) = (outcome(&forged), outcome(&leaders));
    if (forged.as_str(), leaders.as_str()) == ("412 epoch_denied", "200") {
        return None;
    }
    Some(format!("the forged write: {forged}; the leader's next: {leaders}"))
}

/// Somebody on the link has read the leader's stamp, and has no key.
pub fn a_forged_signature(fence: Fence) -> Seen {
    let mut world = World::embedded();
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let file = folder.path().join("k1.key");
    std::fs::write(&file, "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n").expect("it is in a temporary folder");
    let keys = format!("signatures: {{ keys: [ {{ kid: k1, file: {} }} ] }}", file.display());
    let guard = fence.of(world.guard("guard").listener(&keys)).start();
    let (term, one) = world.elect("orders-a");
    guard.await_open(&term);
    let guess = format!("{one};kid=\"k1\";ts=1;sig=:{}=:", "A".repeat(43));
    let forged: Vec<String> = [one, guess].iter().map(|stamp| outcome(&guard.put("/forged", stamp))).collect();
    (forged != ["403 signature_refused"; 2])
        .then(|| format!("unsigned: {}; signed by a guess: {}", forged[0], forged[1]))
}

/// Two stamps of one epoch with different nonces: a coordinator that was restored has minted it twice.
pub fn the_same_epoch_from_somebody_else(fence: Fence) -> Seen {
    let mut world = World::embedded();
    let guard = fence.of(world.guard("guard")).start();
    let (_, one) = world.elect("orders-a");
    assert_eq!(guard.put("/a", &one).status, 200);
    let other = guard.put("/other", "1;nonce=:AAAAAAAAAAA=:;by=\"orders-b\";res=\"orders\"");
    assert!(other.status == 200 || other.refused() == Some("epoch_conflict"), "{}", other.text());
    let stamps = world.upstream.applied().into_iter().filter_map(|write| write.stamp).collect::<Vec<_>>();
    (stamps.len() > 1).then(|| format!("applied: {}", stamps.join(" and ")))
}

/// `kill -9` after the new epoch is on disk, and before the old write has landed.
pub fn a_guard_that_dies_while_it_drains(fence: Fence) -> Seen {
    let mut world = World::embedded();
    let mut guard = fence.of(world.guard("guard").hasty().upstream_times("3s", "1s")).start();
    let (_, one) = world.elect("orders-a");
    world.upstream.next("/old", "apply=@old");
    drop(guard.write("/old", Some(&one)));
    world.await_arrival("/old");
    let (_, two) = world.elect("orders-b");
    drop(guard.write("/unlucky", Some(&two)));
    guard.await_held(1);
    guard.process().kill();
    guard.start();
    land(fence, &world, &guard, &two)
}

/// `kill -9` with the epoch open and a write in the target; the next epoch is elected before it is back.
pub fn a_guard_that_dies_with_a_write_in_the_target(fence: Fence) -> Seen {
    let mut world = World::embedded();
    let mut guard = fence.of(world.guard("guard").hasty().upstream_times("3s", "1s")).start();
    let (_, one) = world.elect("orders-a");
    world.upstream.next("/old", "apply=@old");
    drop(guard.write("/old", Some(&one)));
    world.await_arrival("/old");
    guard.process().kill();
    let (_, two) = world.elect("orders-b");
    guard.start();
    // It learns of the epoch when it has joined: a write that came before could only be refused.
    guard.process().await_words("joined", LONG);
    eventually("it knows the new epoch", LONG, || guard.resource()["gate"]["floor"] == "2");
    land(fence, &world, &guard, &two)
}

/// The epoch moves on, and the new leader writes while `/old` waits at the latch `old`.
fn race(fence: Fence, world: &mut World, guard: &Sidecar) -> Seen {
    let (_, two) = world.elect("orders-b");
    land(fence, world, guard, &two)
}

/// Lets both writes land: with the whole fence once the new one is seen to be held, else once it has landed.
fn land(fence: Fence, world: &World, guard: &Sidecar, two: &str) -> Seen {
    let new = guard.write("/new", Some(two));
    if fence.is_whole() {
        guard.await_held(1);
        assert!(world.applied().is_empty());
    } else {
        world.await_applied("/new");
    }
    world.upstream.open("old");
    world.await_applied("/old");
    assert_eq!(answered(new), 200);
    out_of_order(world)
}

/// R1, as the target saw it.
pub fn out_of_order(world: &World) -> Seen {
    let epochs = world.upstream.epochs();
    (!epochs.is_sorted()).then(|| format!("applied: {:?}, of epochs {epochs:?}", world.applied()))
}

fn outcome(answer: &Answer) -> String {
    let status = answer.status.to_string();
    answer.refused().map_or(status.clone(), |reason| format!("{status} {reason}"))
}

/// A target with small buffers that reads the head of its first request, and no more before it is told to.
struct Unreading {
    listener: TcpListener,
    first: std::sync::mpsc::Receiver<std::net::TcpStream>,
}

impl Unreading {
    /// More than its buffers take, and less than the guard's kernel does.
    const BODY: usize = 400_000;

    fn start() -> Unreading {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        // Its connections have it too: they are made with what the listener has.
        rustix::net::sockopt::set_socket_recv_buffer_size(&listener, 8192).unwrap();
        let accepting = listener.try_clone().unwrap();
        let (send, first) = std::sync::mpsc::channel();
        std::thread::spawn(move || send.send(accepting.accept().unwrap().0));
        Unreading { listener, first }
    }

    fn address(&self) -> std::net::SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// Reads the next connection's request, a small one, and answers it.
    fn answer_the_next(&self) {
        use std::io::{Read as _, Write as _};
        let listener = self.listener.try_clone().unwrap();
        std::thread::spawn(move || {
            let (mut next, _) = listener.accept().unwrap();
            let _ = next.read(&mut [0; 4096]);
            next.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
            // The guard may use it again.
            let _ = next.read(&mut [0; 4096]);
        });
    }

    /// Reads what comes of the first request; whether all of it does.
    fn read_the_first(&self) -> bool {
        use std::io::Read as _;
        let mut first = self.first.recv_timeout(LONG).unwrap();
        first.set_read_timeout(Some(QUARANTINE * 4)).unwrap();
        let (mut request, mut piece) = (Vec::new(), [0; 65_536]);
        while let Ok(count @ 1..) = first.read(&mut piece) {
            request.extend_from_slice(&piece[..count]);
        }
        let body = request.windows(4).position(|end| end == b"\r\n\r\n").map(|at| request.len() - at - 4);
        body == Some(Unreading::BODY)
    }
}
