//! The last words to a client, so that it hears them.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use crate::net::{Closing, Stage, Stream};

/// So long may a client take to hear them.
const TIME: Duration = Duration::from_secs(2);

/// Says this, and ends the connection. What the client has sent and nobody read would end it by reset, and the reset throws away
/// what the client has not read yet: so what it sends is read until it closes its side, for a while.
pub async fn tell(mut client: Stream, words: &[u8], closing: &mut Closing) {
    let told = async {
        client.write_all(words).await?;
        client.shutdown().await?;
        let mut nothing = [0; 1024];
        while client.read(&mut nothing).await? > 0 {}
        Ok::<_, std::io::Error>(())
    };
    let told = timeout(TIME, told);
    tokio::select! {
        biased;
        () = closing.until(Stage::Now) => {}
        // Whoever has gone does not hear it.
        _ = told => {}
    }
}
