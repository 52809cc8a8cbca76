//! A link with a delay and a bandwidth, between clients and a server on this machine.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes that are handed on at once.
const CHUNK: usize = 4096;

/// What a link does to what is sent over it.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// Time there and back.
    pub round_trip: Duration,
    /// Of each direction of each connection.
    pub bits_per_second: u64,
}

impl Link {
    /// Listens on this machine, and hands on to `server` and back. Ends with the process.
    ///
    /// # Errors
    /// There is no port to listen on.
    pub fn to(self, server: SocketAddr) -> io::Result<SocketAddr> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(client) = client else { return };
                // A client whose server is not there is cut off.
                if let Ok(server) = TcpStream::connect(server) {
                    let _ = self.join(&client, &server);
                }
            }
        });
        Ok(address)
    }

    fn join(self, client: &TcpStream, server: &TcpStream) -> io::Result<()> {
        for stream in [client, server] {
            stream.set_nodelay(true)?;
        }
        self.one_way(client.try_clone()?, server.try_clone()?);
        self.one_way(server.try_clone()?, client.try_clone()?);
        Ok(())
    }

    /// One thread takes what is sent, as fast as the link does; another hands it on when it has come
    /// over.
    fn one_way(self, from: TcpStream, to: TcpStream) {
        let (sender, receiver) = channel();
        thread::spawn(move || self.take(from, &sender));
        thread::spawn(move || hand_on(to, &receiver));
    }

    fn take(self, mut from: TcpStream, over: &Sender<(Instant, Vec<u8>)>) {
        let mut chunk = vec![0; CHUNK];
        let mut is_free = Instant::now();
        while let Ok(count @ 1..) = from.read(&mut chunk) {
            let bits = count as f64 * 8.0;
            let sending = Duration::from_secs_f64(bits / self.bits_per_second as f64);
            is_free = is_free.max(Instant::now()) + sending;
            thread::sleep(is_free.saturating_duration_since(Instant::now()));
            let arrives = is_free + self.round_trip / 2;
            if over.send((arrives, chunk[..count].to_vec())).is_err() {
                return;
            }
        }
    }
}

fn hand_on(mut to: TcpStream, over: &Receiver<(Instant, Vec<u8>)>) {
    for (arrives, chunk) in over {
        thread::sleep(arrives.saturating_duration_since(Instant::now()));
        if to.write_all(&chunk).is_err() {
            return;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_comes_over_no_faster_than_the_link() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let server = listener.local_addr().expect("an address");
        let echo = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            let mut got = Vec::new();
            stream.read_to_end(&mut got).expect("read");
            stream.write_all(&got).expect("written");
        });
        let link = Link {
            round_trip: Duration::from_millis(20),
            bits_per_second: 8_000_000,
        };
        let mut client = TcpStream::connect(link.to(server).expect("a link")).expect("a way");
        let sent: Vec<u8> = (0..100_000_u32).map(|byte| byte as u8).collect();
        let begun = Instant::now();
        client.write_all(&sent).expect("written");
        client.shutdown(Shutdown::Write).expect("an end");
        let mut got = Vec::new();
        client.read_to_end(&mut got).expect("read");
        assert_eq!(got, sent);
        // A tenth of a second each way, and the round trip. No bound above: machines may be busy.
        assert!(begun.elapsed() >= Duration::from_millis(220));
        echo.join().expect("the server");
    }
}
